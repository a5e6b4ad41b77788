"""A sweep from its file to its tables."""

import importlib
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict
from rich.console import Console

from research import storage
from research.ablation import runs as sweep_runs
from research.ablation import sweep
from research.ablation.pool import Supervisor
from research.ablation.progress import Board
from research.ablation.report import page, remarks, reproduction, tables
from research.ablation.report.published import read
from research.ablation.runs import Run
from research.adapt import methods
from research.config import fields
from research.errors import InputError
from research.experiment import build as experiments


class Study:
    """The runs of the sweep in the file `path` (with its words) that have `only` in their labels, in `workdir`.

    `fleets`: whether runs that can be trained together are; `index`: "I/N" for an array job's share; `changes`: arguments like
    `--config.NAME=VALUE` for the base. Raises InputError on whatever of this cannot be used.
    """

    def __init__(self, path: str, workdir: Path, only: str = "", fleets: bool = True, index: str = "", changes: Sequence[str] = ()):
        self._path, self._workdir, self._changes = path, workdir, changes
        self._base, overrides = sweep.load(path, changes)
        self._runs = sweep_runs.chosen(sweep_runs.identify(sweep.configs(self._base, overrides)), only)
        self._tasks = sweep_runs.tasks(self._runs, fleets, index)

    def plan(self) -> str:
        """A line for each run: its id, whether it is finished, what it sets, and how many are trained together with it."""
        lines = []
        for task in self._tasks:
            company = f" (one of {len(task)} together)" if len(task) > 1 else ""
            for run_id in task:
                state = "finished" if (self._workdir / run_id / "result.json").exists() else "to do"
                lines.append(f"{run_id} {state} {sweep_runs.label(self._runs[run_id][0])}{company}\n")
        return "".join(lines)

    def check(self) -> None:
        """Raise InputError, once, where the base cannot be run and its runs cannot for the same reason: nothing is begun then.

        The first and the last run stand for all: what the sweep itself sets may mend a base.
        """
        todo = [self._runs[run_id][1] for task in self._todo() for run_id in task]
        if not todo:
            return
        base = self._base()
        methods.resolve(base)
        reason = _objection(base)
        if reason and all(_objection(config) == reason for config in (todo[0], todo[-1])):
            raise InputError(f"all {len(todo)} runs of the sweep would fail: {reason}")

    def remove_outdated(self, console: Console) -> None:
        """Remove the finished runs that read other data than there are now."""
        current = {}
        for run in self._found():
            if run.result and remarks.data_of(run) not in current:
                current[remarks.data_of(run)] = experiments.load_data(run.config).raw_fingerprint
        for run in remarks.without_outdated(self._found(), current):
            if run.outdated:
                shutil.rmtree(run.folder)
                console.print(f"{run.id} {sweep_runs.label(run.overrides)}: removed, as its data have changed")

    def own(self) -> None:
        """Makes the workdir this sweep's. Raises InputError where it is another's."""
        sweep_runs.own(self._workdir, self._path)

    def run(self, jobs: int, console: Console) -> None:
        """Does what is not finished, in `jobs` processes; what failed before is tried again."""
        for task in self._tasks:
            for run_id in task:
                (self._workdir / run_id / "error.txt").unlink(missing_ok=True)
        if not (todo := self._todo()):
            return
        with Board(self._look, console) as board, Supervisor(self._path, self._workdir, todo, jobs, board.say, self._changes) as supervisor:
            page.plotter()  # now, while the workers start, what takes the report time to load
            importlib.import_module("scipy.stats")
            while not supervisor.wait(1.0):
                board.refresh()

    def report(self) -> str:
        """Writes `table.md`, `table.csv`, `table.tex` and `page.html` from what is there; gives the first. Where the sweep's file has what
        a paper published, `table.md` says how ours compares."""
        found, published = self._look(), read(self._path)
        beside = f"\n{reproduction.markdown(published, found)}" if published else ""
        written = {
            "table.md": tables.markdown(found) + beside,
            "table.csv": tables.comma_separated(found),
            "table.tex": tables.latex(found),
            "page.html": page.html(found, Path(self._path.partition(":")[0]).stem, self._replay, sweep.question(self._path)),
        }
        for name, text in written.items():
            storage.write_text(self._workdir / name, text)
        return written["table.md"]

    def _todo(self) -> list[list[str]]:
        """The tasks with a run that is not finished."""
        return [task for task in self._tasks if any(not (self._workdir / run_id / "result.json").exists() for run_id in task)]

    def _found(self) -> list[Run]:
        return sweep_runs.results(self._runs, self._workdir)

    def _look(self) -> list[Run]:
        """The runs as tables have them: without results on data that have changed since."""
        found = self._found()
        return remarks.without_outdated(found, remarks.newest(found))

    def _replay(self, run: Run) -> str:
        return shlex.join(
            ["python", "-m", "research.ablation", f"--config={self._path}", f"--workdir={self._workdir}", f"--replay={run.id}"]
        )


def _objection(config: ConfigDict) -> str:
    """Return why this run cannot be trained, as far as can be told without computing anything; "" if it may.

    This process leaves accelerators to its workers, so how the run uses its devices is not looked at."""
    jax.config.update("jax_platforms", "cpu")
    try:
        experiments.plan_of(fields.override(config.copy_and_resolve_references(), {"parallel": "jit"}))
    except InputError as error:
        return str(error)
    return ""
