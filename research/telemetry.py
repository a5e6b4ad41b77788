"""What a run says about itself: metrics.jsonl, TensorBoard events, a progress line, curves.png."""

import functools
import json
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from research import whole

PANELS = {
    "loss": ("train/loss", "dev/loss"),
    "accuracy": ("train/accuracy", "dev/accuracy"),
    "learning rate": ("learning_rate",),
}


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


def draw_curves(workdir: Path) -> None:
    """`curves.png` from metrics.jsonl: the loss, the dev score and the learning rate over steps."""
    lines = read_metrics(workdir)
    figure = _paper()
    for axis, names in zip(figure.axes, PANELS.values(), strict=True):
        for old in (*axis.lines, *filter(None, [axis.get_legend()])):
            old.remove()
        axis.set_prop_cycle(None)
        axis.relim()
        axis.set(xlim=(0, 1), ylim=(0, 1), autoscale_on=True)  # as they were: without points they would stay as they are
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            if points:
                axis.plot(*zip(*points, strict=True), label=name, marker="o" if name.startswith("dev") else None)
        if axis.lines:
            axis.legend()
    with whole.writing(workdir / "curves.png") as part:
        figure.savefig(part, dpi=110, format="png")


@functools.cache
def _paper() -> Any:
    """The figure to draw curves in: its axes and their ticks take longer to make than to draw."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.4))
    axes = figure.subplots(1, len(PANELS), gridspec_kw={"left": 0.05, "right": 0.99, "bottom": 0.15, "top": 0.91, "wspace": 0.18})
    for axis, title in zip(axes, PANELS, strict=True):
        axis.set_title(title, y=1)  # where it would be put anyhow, after all ticks had been laid out once more
        axis.set_xlabel("step")
        axis.locator_params(nbins=5)
        axis.grid(alpha=0.3)
    return figure
