"""A sweep from its file to its tables."""

import importlib
import shlex
from pathlib import Path

from rich.console import Console

from research import whole
from research.ablation import ledger, page, report, runner, sweep, verdict
from research.ablation.live import Board
from research.ablation.run import Run
from research.ablation.supervisor import Supervisor


class Sweep:
    """The runs of the sweep in the file `path` (with its words) that have `only` in their labels, in `workdir`.

    `fleets`: whether runs that can be trained together are; `index`: "I/N" for an array job's share. Raises InputError on whatever of
    this cannot be used.
    """

    def __init__(self, path: str, workdir: Path, only: str = "", fleets: bool = True, index: str = ""):
        self._path, self._workdir = path, workdir
        self._runs = runner.chosen(runner.identify(sweep.configs(*sweep.load(path))), only)
        self._tasks = runner.tasks(self._runs, fleets, index)

    def plan(self) -> str:
        """A line for each run: its id, whether it is finished, what it sets, and how many are trained together with it."""
        lines = []
        for task in self._tasks:
            company = f" (one of {len(task)} together)" if len(task) > 1 else ""
            for run_id in task:
                state = "finished" if (self._workdir / run_id / "result.json").exists() else "to do"
                lines.append(f"{run_id} {state} {runner.label(self._runs[run_id][0])}{company}\n")
        return "".join(lines)

    def own(self) -> None:
        """Makes the workdir this sweep's. Raises InputError where it is another's."""
        runner.own(self._workdir, self._path)

    def run(self, jobs: int, console: Console) -> None:
        """Does what is not finished, in `jobs` processes; what failed before is tried again."""
        for task in self._tasks:
            for run_id in task:
                (self._workdir / run_id / "error.txt").unlink(missing_ok=True)
        todo = [task for task in self._tasks if any(not (self._workdir / run_id / "result.json").exists() for run_id in task)]
        if not todo:
            return
        with Board(self._look, console) as board, Supervisor(self._path, self._workdir, todo, jobs, board.say) as supervisor:
            page.plotter()  # now, while the workers start, what takes the report time to load
            importlib.import_module("scipy.stats")
            while not supervisor.wait(1.0):
                board.refresh()

    def report(self) -> str:
        """Writes `table.md`, `table.csv`, `table.tex` and `page.html` from what is there; gives the first. Where the sweep's file has what
        a paper published, `table.md` says how ours compares."""
        found, published = self._look(), ledger.read(self._path)
        beside = f"\n{verdict.markdown(published, found)}" if published else ""
        written = {
            "table.md": report.markdown(found) + beside,
            "table.csv": report.comma_separated(found),
            "table.tex": report.latex(found),
            "page.html": page.html(found, Path(self._path.partition(":")[0]).stem, self._replay),
        }
        for name, text in written.items():
            whole.write_text(self._workdir / name, text)
        return written["table.md"]

    def _look(self) -> list[Run]:
        return runner.results(self._runs, self._workdir)

    def _replay(self, run: Run) -> str:
        return shlex.join(
            ["python", "-m", "research.ablation", f"--config={self._path}", f"--workdir={self._workdir}", f"--replay={run.id}"]
        )
