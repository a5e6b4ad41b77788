"""Run a sweep: read its file, train its runs, write tables and a page of the results."""

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
from research.ablation.run import Run
from research.config import fields
from research.errors import InputError
from research.experiment import build as experiments


class Study:
    """The runs in `workdir` of the sweep in the file `path` (FILE.py[:WORDS]) whose labels match the regular expression `only`.

    `fleets`: train compatible runs together. `index`: "I/N", the share of an array job. `changes`: arguments `--config.NAME=VALUE` that
    change the base config. Raises InputError on an invalid argument.
    """

    def __init__(self, path: str, workdir: Path, only: str = "", fleets: bool = True, index: str = "", changes: Sequence[str] = ()):
        self._path, self._workdir, self._changes = path, workdir, changes
        self._base, overrides = sweep.load(path, changes)
        self._runs = sweep_runs.select(sweep_runs.identify(sweep.configs(self._base, overrides)), only)
        self._tasks = sweep_runs.tasks(self._runs, fleets, index)

    def plan(self) -> str:
        """Return a line for each run: its id, `finished` or `to do`, its overrides, and the number of runs trained together with it."""
        lines = []
        for task in self._tasks:
            group = f" (one of {len(task)} trained together)" if len(task) > 1 else ""
            for run_id in task:
                state = "finished" if (self._workdir / run_id / "result.json").exists() else "to do"
                lines.append(f"{run_id} {state} {sweep_runs.label(self._runs[run_id][0])}{group}\n")
        return "".join(lines)

    def check(self) -> None:
        """Raise InputError before any training if the base config and the runs are invalid for the same reason.

        Only the first and the last run are checked. A base alone may be invalid, since the overrides of the sweep may correct it.
        """
        todo = [self._runs[run_id][1] for task in self._todo() for run_id in task]
        if not todo:
            return
        reason = _config_error(self._base())
        if reason and all(_config_error(config) == reason for config in (todo[0], todo[-1])):
            raise InputError(f"all {len(todo)} runs of the sweep would fail: {reason}")

    def remove_outdated(self, console: Console) -> None:
        """Delete finished runs whose data differ from the current data."""
        current = {}
        for run in self._results():
            if run.result and remarks.data_of(run) not in current:
                current[remarks.data_of(run)] = experiments.load_data(run.config).raw_fingerprint
        for run in remarks.without_outdated(self._results(), current):
            if run.outdated:
                shutil.rmtree(run.folder)
                console.print(f"{run.id} {sweep_runs.label(run.overrides)}: deleted, because its data have changed")

    def claim(self) -> None:
        """Record in the workdir that it holds this sweep. Raises InputError if it holds another sweep."""
        sweep_runs.claim(self._workdir, self._path)

    def run(self, jobs: int, console: Console) -> None:
        """Train the unfinished runs in `jobs` processes, including runs that failed before."""
        for task in self._tasks:
            for run_id in task:
                (self._workdir / run_id / "error.txt").unlink(missing_ok=True)
        if not (todo := self._todo()):
            return
        with (
            Board(self._current_results, console) as board,
            Supervisor(self._path, self._workdir, todo, jobs, board.say, self._changes) as supervisor,
        ):
            page.plotter()  # load what the report needs while the workers start
            importlib.import_module("scipy.stats")
            while not supervisor.wait(1.0):
                board.refresh()

    def report(self) -> str:
        """Write `table.md`, `table.csv`, `table.tex` and `page.html` from the current results, and return the text of `table.md`.

        If the sweep's file has published numbers, `table.md` compares the results with them."""
        runs, published = self._current_results(), read(self._path)
        comparison = f"\n{reproduction.markdown(published, runs)}" if published else ""
        texts = {
            "table.md": tables.markdown(runs) + comparison,
            "table.csv": tables.comma_separated(runs),
            "table.tex": tables.latex(runs),
            "page.html": page.html(runs, Path(self._path.partition(":")[0]).stem, self._replay_command, sweep.question(self._path)),
        }
        for name, text in texts.items():
            storage.write_text(self._workdir / name, text)
        return texts["table.md"]

    def _todo(self) -> list[list[str]]:
        """Return the tasks that have an unfinished run."""
        return [task for task in self._tasks if any(not (self._workdir / run_id / "result.json").exists() for run_id in task)]

    def _results(self) -> list[Run]:
        return sweep_runs.results(self._runs, self._workdir)

    def _current_results(self) -> list[Run]:
        """Return the runs, without the results of runs on data that have changed since."""
        runs = self._results()
        return remarks.without_outdated(runs, remarks.newest(runs))

    def _replay_command(self, run: Run) -> str:
        return shlex.join(
            ["python", "-m", "research.ablation", f"--config={self._path}", f"--workdir={self._workdir}", f"--replay={run.id}"]
        )


def _config_error(config: ConfigDict) -> str:
    """Return the error of building the run without computing anything; "" if there is none.

    This process leaves accelerators to its workers, so it does not check how the run uses its devices."""
    jax.config.update("jax_platforms", "cpu")
    try:
        experiments.plan_of(fields.copied(experiments.resolve(config), {"parallel": "jit"}))
    except InputError as error:
        return str(error)
    return ""
