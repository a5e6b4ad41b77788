"""What a run says about itself: metrics.jsonl, TensorBoard events, lines of progress."""

import json
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from research import storage
from research.errors import InputError
from research.tasks import metrics


class Telemetry:
    """Writes metrics where people and programs look for them. Use it as a context.

    A terminal shows a bar; anything else gets a line per log interval. Dev scores are lines on both. `resume` drops the lines of
    `metrics.jsonl` after that step: they will be written again.
    """

    def __init__(self, workdir: Path, total_steps: int, resume: int = 0, console: Console | None = None):
        path = workdir / "metrics.jsonl"
        kept = [line for line in read_metrics(workdir) if line["step"] <= resume] if resume else []
        storage.write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = path.open("a", encoding="utf8")
        self._board, self._folder, self._total, self._logged = None, workdir / "tensorboard", total_steps, None
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        silent = self._console.quiet or not self._console.is_terminal
        self._progress = Progress(*columns, TextColumn("{task.fields[note]}"), console=self._console, disable=silent)
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
        """Updates the progress bar."""
        changes = {"completed": step} if step is not None else {}
        self._progress.update(self._bar, description=doing, **changes, **({"note": note} if note is not None else {}))

    def say(self, line: str) -> None:
        """Prints a line, above the bar where there is one."""
        self._console.print(line)

    def log(self, doing: str, step: int, scores: dict[str, float], counts: dict[str, float]) -> None:
        """Prints the line of a log interval, where there is no bar: loss, learning rate, and the speed since the line before.

        `counts` are those of the run's `speed.Meter`. The first step compiles and is not timed: a line that ends with it has no speed."""
        if self._console.is_terminal:
            return
        steps, examples, seconds = now = counts["steps"], counts["examples"], counts["busy_s"]
        if self._logged:
            steps, examples, seconds = (a - b for a, b in zip(now, self._logged, strict=True))
        self._logged = now
        parts = [f"loss {scores['train/loss']:.4f}", f"learning rate {scores['learning_rate']:.2e}"]
        if steps and seconds:
            left = (self._total - step) * seconds / steps
            parts += [f"{examples / seconds:,.1f} examples/s", f"about {duration(left)} left"]
        self.say(f"{doing}: step {step:,} of {self._total:,}: {', '.join(parts)}")

    def judge(
        self, step: int, scores: dict[str, float], metric: str, highest: float | None, of_step: int | None, positive: str | None = None
    ) -> None:
        """Prints dev scores, `metric` first, and whether they are the best so far; `highest` is the best one before, `of_step` its step.

        `positive` is the class that f1 is of; None where it is a mean over classes."""
        names = [metric, *(name for name in scores if name in (*metrics.shown(positive), "loss") and name != metric)]
        better = highest is None or scores[metric] > highest
        verdict = "the best so far" if better else f"not better than {highest:.4f} at step {of_step:,}"
        values = ", ".join(f"{metrics.title(name, positive)} {scores[name]:.4f}" for name in names)
        self.say(f"dev after step {step:,}: {values}; {verdict}")

    def write(self, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl and one point of each TensorBoard curve."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is None:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; a last line that a kill cut short is left out. Raises InputError on any other damage."""
    path = workdir / "metrics.jsonl"
    data = path.read_bytes() if path.exists() else b""
    *lines, rest = data.split(b"\n")
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(json.loads(line))
            found[-1]["step"] + 0
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(f"{path}, line {number}: damaged, not a JSON object with a step; remove {workdir} and run again") from None
    return found
