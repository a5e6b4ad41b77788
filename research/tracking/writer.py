"""Telemetry of a run: metrics.jsonl, TensorBoard events, progress on the terminal."""

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from research import storage
from research.errors import InputError

if TYPE_CHECKING:  # the module of tasks imports jax, which the ablation report does without
    from research.tasks.base import Task


class Telemetry:
    """Context manager that writes the metrics and the progress of a run.

    A terminal shows a progress bar, any other output gets one line per log interval. Dev metrics are printed on both. Lines of
    `metrics.jsonl` after the step `resume` are removed, because the resumed run writes them again.
    """

    def __init__(self, workdir: Path, total_steps: int, resume: int = 0, console: Console | None = None):
        path = workdir / "metrics.jsonl"
        lines = [line for line in read_metrics(workdir) if line["step"] <= resume] if resume else []
        storage.write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
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

    def show(self, activity: str, step: int | None = None, note: str | None = None) -> None:
        """Update the progress bar."""
        changes = {"completed": step} if step is not None else {}
        self._progress.update(self._bar, description=activity, **changes, **({"note": note} if note is not None else {}))

    def say(self, line: str) -> None:
        """Print a line, above the progress bar if there is one."""
        self._console.print(line)

    def log(self, activity: str, step: int, scores: dict[str, float], counts: dict[str, float]) -> None:
        """Print the line of a log interval: loss, learning rate, and throughput since the last line. A terminal has the bar instead.

        `counts` come from `throughput.Meter.counts`. The line has no throughput if no step was timed, as after the first step."""
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
        self.say(f"{activity}: step {step:,} of {self._total:,}: {', '.join(parts)}")

    def judge(self, step: int, scores: dict[str, float], task: "Task", is_best: bool, before: float | None, best_step: int | None) -> None:
        """Print dev metrics, the task's `metric` first, and whether it is the best so far. `before` is its best earlier value, at
        `best_step`."""
        names = [task.metric, *(name for name in scores if name in (*task.titles, "loss") and name != task.metric)]
        comparison = "the best so far" if is_best else f"not better than {before:.4f} at step {best_step:,}"
        values = ", ".join(f"{task.titles.get(name, name)} {scores[name]:.4f}" for name in names)
        self.say(f"dev after step {step:,}: {values}; {comparison}")

    def write(self, step: int, values: dict[str, float]) -> None:
        """Write one line of metrics.jsonl and one point of each TensorBoard curve."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        if self._board is None:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)


def duration(seconds: float) -> str:
    """Return a duration for display, such as `40 s`, `12 min` or `3.5 h`."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def read_metrics(workdir: Path) -> list[dict[str, float]]:
    """Return the lines of a run's metrics.jsonl without an incomplete last line. Raise InputError on any other damage."""
    path = workdir / "metrics.jsonl"
    data = path.read_bytes() if path.exists() else b""
    *lines, _ = data.split(b"\n")  # after the last newline: nothing, or a line that was cut off when the run was killed
    result = []
    for number, line in enumerate(lines, 1):
        try:
            result.append(json.loads(line))
            result[-1]["step"] + 0  # raises unless the step is a number
        except (ValueError, TypeError, KeyError, RecursionError):
            raise InputError(f"{path}, line {number}: damaged, not a JSON object with a step; remove {workdir} and run again") from None
    return result
