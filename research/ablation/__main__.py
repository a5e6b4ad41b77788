"""Command that trains all runs of a sweep and writes tables that compare their results.

python -m research.ablation --config=configs/ablations/methods.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/methods.py:smoke --only=lora --dry_run
python -m research.ablation --config=configs/ablations/methods.py:smoke --config.batch_size=16    # changes all runs
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from research import cli

_CONFIG = flags.DEFINE_string("config", None, "FILE.py[:WORDS] with base(words) and sweep(words); --config.NAME=VALUE changes the base.")
_BASE = flags.DEFINE_multi_string("base", [], "Set by --config.NAME=VALUE; not for direct use.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep, with one subfolder per run; by default runs/NAME.")
_ONLY = flags.DEFINE_string("only", "", "Regular expression; selects the runs whose label `name=value name=value` matches it.")
_INDEX = flags.DEFINE_string("index", "", "I/N: run only every N-th task, starting at the I-th (from 0), for array jobs.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Number of parallel worker processes on this machine.", lower_bound=1)
_FLEETS = flags.DEFINE_bool("fleets", True, "Train runs that differ only in seed and scalar hyperparameters as one program.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the planned runs without training.")
_RERUN = flags.DEFINE_bool("rerun_outdated", False, "Delete and retrain finished runs whose data have changed since.")
_REPLAY = flags.DEFINE_string("replay", None, "Id of a finished run: train it again and compare the parameters.")


def main(_: list[str]) -> None:
    """Train the unfinished runs, then write the tables and print one of them."""
    from research.ablation.study import Study

    name = Path(_CONFIG.value.partition(":")[0]).stem
    workdir, console = Path(_WORKDIR.value or Path("runs") / name), Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if _REPLAY.value:
        from research.ablation.replay import replay
        from research.experiment import modes

        modes.keep_programs()
        sys.exit(0 if replay(workdir, _REPLAY.value, console) else 1)
    study = Study(_CONFIG.value, workdir, _ONLY.value, _FLEETS.value, _INDEX.value, _BASE.value)
    if _DRY_RUN.value:
        print(study.plan(), end="")
        return
    study.check()
    study.claim()
    if _RERUN.value:
        study.remove_outdated(console)
    try:
        study.run(_JOBS.value, console)
    finally:
        if not _INDEX.value:
            print(study.report(), end="")


if __name__ == "__main__":
    cli.run(main)
