"""A live table of a sweep's results in the terminal."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from research.ablation.report import tables
from research.ablation.run import Run
from research.tracking.writer import duration

MAX_ROWS = 40


class Board:
    """Live table of the runs that `load_runs` returns. Use it as a context manager. Without a terminal it prints only messages."""

    def __init__(self, load_runs: Callable[[], Sequence[Run]], console: Console):
        self._load_runs, self._start = load_runs, time.monotonic()
        self._ended_before = self._ended(load_runs())
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._console = console

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self.refresh()  # the last table stays in the terminal, so it must show the final state
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line above the table."""
        self._console.print(text)

    def refresh(self) -> None:
        """Load the runs again and redraw the table."""
        if self._live:
            self._live.update(self._render(self._load_runs()), refresh=True)

    def _render(self, runs: Sequence[Run]) -> Group:
        """Return the table of the current results, with progress and estimated time left under it."""
        settings = tables.settings(runs)
        names = list(dict.fromkeys(name for setting in settings for name in setting.values))
        table = Table(*names, "n", "test", "dev")
        for setting in settings[:MAX_ROWS]:
            n = len(setting.results)
            scores = [tables.mean(list(setting.scores(split).values())) if n else "" for split in ("test", "dev")]
            cells = scores if n or not setting.errors else [Text("failed", style="red"), ""]
            table.add_row(*(str(setting.values.get(name, "")) for name in names), f"{n} of {len(setting.runs)}", *cells)
        more = [Text(f"and {len(settings) - MAX_ROWS} more settings")] if len(settings) > MAX_ROWS else []
        return Group(table, *more, Text(self._progress(runs)))

    def _progress(self, runs: Sequence[Run]) -> str:
        ended, failed = self._ended(runs), sum(run.status == "failed" for run in runs)
        seconds, ended_here = time.monotonic() - self._start, ended - self._ended_before
        left = f", about {duration(seconds / ended_here * (len(runs) - ended))} left" if ended_here and ended < len(runs) else ""
        return f"{ended} of {len(runs)} runs ended{f', {failed} failed' if failed else ''}; {duration(seconds)}{left}"

    @staticmethod
    def _ended(runs: Sequence[Run]) -> int:
        return sum(run.status in ("finished", "failed", "outdated") for run in runs)
