"""A table from a question: runs all runs of a sweep and puts their results side by side.

python -m research.ablation --config=configs/ablations/methods.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/methods.py:smoke --only=lora --dry_run
python -m research.ablation --config=configs/ablations/methods.py:smoke --config.batch_size=16    # another base for all runs
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from research import cli

_CONFIG = flags.DEFINE_string("config", None, "FILE.py[:WORDS] with base(words) and sweep(words); --config.NAME=VALUE changes the base.")
_BASE = flags.DEFINE_multi_string("base", [], "Where --config.NAME=VALUE ends up.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go, each in a folder of its own; by default runs/NAME.")
_ONLY = flags.DEFINE_string("only", "", "Only runs with this regular expression in `name=value name=value`.")
_INDEX = flags.DEFINE_string("index", "", "I/N: only every N-th task from the I-th, for array jobs.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Processes side by side on this machine.", lower_bound=1)
_FLEETS = flags.DEFINE_bool("fleets", True, "Train runs that differ in seed and scalars alone as one program.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what would run.")
_RERUN = flags.DEFINE_bool("rerun_outdated", False, "Remove finished runs on other data than there are now, and run them again.")
_REPLAY = flags.DEFINE_string("replay", None, "The id of a finished run: run it again and compare the parameters.")


def main(_: list[str]) -> None:
    """Runs what is not finished yet, then writes the tables and prints one."""
    from research.ablation.study import Study

    name = Path(_CONFIG.value.partition(":")[0]).stem
    workdir, console = Path(_WORKDIR.value or Path("runs") / name), Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if _REPLAY.value:
        from research.ablation.replay import replay
        from research.experiment import modes

        modes.keep_programs()
        sys.exit(0 if replay(workdir, _REPLAY.value, console) else 1)
    sweep = Study(_CONFIG.value, workdir, _ONLY.value, _FLEETS.value, _INDEX.value, _BASE.value)
    if _DRY_RUN.value:
        print(sweep.plan(), end="")
        return
    sweep.check()
    sweep.own()
    if _RERUN.value:
        sweep.remove_outdated(console)
    try:
        sweep.run(_JOBS.value, console)
    finally:
        if not _INDEX.value:
            print(sweep.report(), end="")


if __name__ == "__main__":
    cli.run(main)
