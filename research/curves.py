"""`curves.png`, drawn by a process of its own while the run goes on: matplotlib takes half a second to load and a tenth for a picture.

`python -m research.curves` reads workdirs, one a line, and answers each with a line of JSON: null, or what went wrong.
"""

import atexit
import contextlib
import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research import telemetry, whole

PANELS = {
    "loss": ("train/loss", "dev/loss"),
    "accuracy": ("train/accuracy", "dev/accuracy"),
    "learning rate": ("learning_rate",),
}


class Artist:
    """The process that draws for this one, and ends with it."""

    def __init__(self):
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        # A group of its own: Ctrl-C is for who asks.
        self._process = subprocess.Popen([sys.executable, "-m", "research.curves"], env=environment, process_group=0, **pipes)
        self._lock, self._asked, self._answers = threading.Lock(), 0, []
        atexit.register(self.close)

    def ask(self, workdir: Path) -> int:
        """Asks for a picture; the number to wait for."""
        with self._lock, contextlib.suppress(BrokenPipeError):  # `wait` will find it dead
            self._asked += 1
            print(json.dumps(str(workdir.absolute())), file=self._process.stdin, flush=True)
        return self._asked - 1

    def wait(self, number: int) -> bool:
        """Waits for a picture that was asked for; whether the process has lived to draw it. Raises RuntimeError where it could not."""
        with self._lock:
            while len(self._answers) <= number and (line := self._process.stdout.readline()).endswith("\n"):
                self._answers.append(json.loads(line))
        if number < len(self._answers) and self._answers[number]:
            raise RuntimeError(f"curves.png was not drawn: {self._answers[number]}")
        return number < len(self._answers)

    def close(self) -> None:
        """Lets the process end."""
        with contextlib.suppress(BrokenPipeError), self._process:  # closes its pipes and waits
            pass

    def lives(self) -> bool:
        """Whether the process is there."""
        return self._process.poll() is None


def prepare() -> Artist:
    """Starts the process, if it is not there: the earlier, the less there will be to wait for."""
    if not _artist().lives():
        _artist.cache_clear()
    return _artist()


_artist = functools.cache(Artist)


def draw(workdir: Path) -> Callable[[], None]:
    """Has `curves.png` drawn from metrics.jsonl. What it gives waits until that is done, and raises RuntimeError where it was not."""
    artist = prepare()
    number = artist.ask(workdir)
    return lambda: None if artist.wait(number) else picture(workdir)


def picture(workdir: Path) -> None:
    """Draws `curves.png` here and now: the loss, the dev score and the learning rate over steps."""
    lines = telemetry.read_metrics(workdir)
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


def main() -> None:
    """Draws what it is asked for until nobody can ask any more."""
    _paper()
    for line in sys.stdin:
        problem = None
        try:
            picture(Path(json.loads(line)))
        except Exception as error:  # whatever it was: it goes to who asked
            problem = f"{type(error).__name__}: {error}"
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(problem), flush=True)


if __name__ == "__main__":
    main()
