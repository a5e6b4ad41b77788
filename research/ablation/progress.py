"""The table of a sweep in the terminal, while its cells fill in."""

import time
from collections.abc import Callable, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from research.ablation.report import tables
from research.ablation.runs import Run
from research.tracking.writer import duration

MOST_ROWS = 40


class Board:
    """Shows the runs that `look` finds. Use it as a context. Where the console is no terminal, only what is said is shown."""

    def __init__(self, look: Callable[[], Sequence[Run]], console: Console):
        self._look, self._start = look, time.monotonic()
        self._before = self._ended(look())
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._console = console

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        self.refresh()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self.refresh()  # the last picture is the end
            self._live.stop()

    def say(self, text: str) -> None:
        """A line above the table."""
        self._console.print(text)

    def refresh(self) -> None:
        """Looks again."""
        if self._live:
            self._live.update(self.picture(self._look()), refresh=True)

    def picture(self, runs: Sequence[Run]) -> Group:
        """The table now, and under it how far the sweep is and how long the rest should take."""
        settings = tables.settings(runs)
        names = list(dict.fromkeys(name for one in settings for name in one.values))
        table = Table(*names, "n", "test", "dev")
        for one in settings[:MOST_ROWS]:
            n = len(one.results)
            scores = [tables.mean(list(one.scores(split).values())) if n else "" for split in ("test", "dev")]
            said = scores if n or not one.errors else [Text("failed", style="red"), ""]
            table.add_row(*(str(one.values.get(name, "")) for name in names), f"{n} of {len(one.runs)}", *said)
        more = [Text(f"and {len(settings) - MOST_ROWS} more settings")] if len(settings) > MOST_ROWS else []
        return Group(table, *more, Text(self._progress(runs)))

    def _progress(self, runs: Sequence[Run]) -> str:
        ended, failed = self._ended(runs), sum(run.status == "failed" for run in runs)
        seconds, now = time.monotonic() - self._start, ended - self._before
        left = f", about {duration(seconds / now * (len(runs) - ended))} left" if now and ended < len(runs) else ""
        return f"{ended} of {len(runs)} runs ended{f', {failed} failed' if failed else ''}; {duration(seconds)}{left}"

    @staticmethod
    def _ended(runs: Sequence[Run]) -> int:
        return sum(run.status in ("finished", "failed", "outdated") for run in runs)
