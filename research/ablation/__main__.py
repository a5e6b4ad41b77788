"""A table from a question: runs all runs of a sweep and puts their results side by side.

python -m research.ablation --config=configs/ablations/methods.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/methods.py:smoke --only=lora --dry_run
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console

from research import cli

_CONFIG = flags.DEFINE_string("config", None, "FILE.py[:WORDS] with base(words) and sweep(words).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the runs go, each in a folder of its own; by default runs/NAME.")
_ONLY = flags.DEFINE_string("only", "", "Only runs with this regular expression in `name=value name=value`.")
_INDEX = flags.DEFINE_string("index", "", "I/N: only every N-th run from the I-th, for array jobs.")
_JOBS = flags.DEFINE_integer("jobs", 1, "Processes side by side on this machine.", lower_bound=1)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Only say what would run.")


def main(_: list[str]) -> None:
    """Runs what is not finished yet, then writes the tables and prints one."""
    from research import job, whole
    from research.ablation import report, runner, sweep

    job.keep_programs()
    name = Path(_CONFIG.value.partition(":")[0]).stem
    workdir, console = Path(_WORKDIR.value or Path("runs") / name), Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    everything = runner.identify(sweep.configs(*sweep.load(_CONFIG.value)))
    runs = runner.chosen(everything, _ONLY.value, _INDEX.value)
    if _DRY_RUN.value:
        for run_id, (overrides, _) in runs.items():
            print(run_id, "finished" if (workdir / run_id / "result.json").exists() else "to do", runner.label(overrides))
        return
    if _JOBS.value > 1 and not _INDEX.value:
        runner.side_by_side(_JOBS.value, sys.argv[1:])
    else:
        runner.run_all(runs, workdir, console)
    if not _INDEX.value:
        found = runner.results(runs, workdir)
        for ending, write in (("md", report.markdown), ("csv", report.comma_separated), ("tex", report.latex)):
            whole.write_text(workdir / f"table.{ending}", write(found))
        print(report.markdown(found), end="")


if __name__ == "__main__":
    cli.run(main)
