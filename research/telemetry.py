"""What a run says about itself: metrics.jsonl, TensorBoard events, a progress line."""

import json
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from research import whole


class Telemetry:
    """Writes metrics where people and programs look for them. Use it as a context.

    `resume` drops the lines of `metrics.jsonl` after that step: they will be written again.
    """

    def __init__(self, workdir: Path, total_steps: int, resume: int = 0, console: Console | None = None):
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_metrics(workdir) if line["step"] <= resume] if resume else []
        whole.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf8")
        self._board, self._folder = None, workdir / "tensorboard"
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        console = console or Console(stderr=True)
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=console, disable=console.quiet)
        self._bar = self._progress.add_task("compiling", total=total_steps, completed=resume, note="")

    def __enter__(self) -> "Telemetry":
        self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.show("trained")
        self._progress.stop()
        self._file.close()
        if self._board:
            self._board.close()

    def show(self, doing: str, step: int | None = None, note: str | None = None) -> None:
        """Updates the progress line."""
        changes = {"completed": step} if step is not None else {}
        self._progress.update(self._bar, description=doing, **changes, **({"note": note} if note is not None else {}))

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl and one point of each TensorBoard curve."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is None:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; a last line that a kill cut short is left out."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text(encoding="utf8").splitlines() if path.exists() else []
    if lines and not lines[-1].endswith("}"):
        lines.pop()
    return [json.loads(line) for line in lines]
