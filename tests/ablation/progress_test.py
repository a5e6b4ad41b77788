"""The live table of a sweep, on a recorded console."""

import dataclasses
import io
import re

import pytest
from ml_collections import ConfigDict
from rich.console import Console

from research.ablation import progress
from research.ablation.run import Run
from research.tracking import writer
from tests.ablation import sweeps


def board(runs: list[Run], terminal: bool = True, width: int = 120) -> tuple[progress.Board, Console]:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=width, height=60, color_system=None, highlight=False, markup=False)
    return progress.Board(lambda: runs, console), console


def shown(console: Console) -> str:
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", console.file.getvalue())


def cells(console: Console, method: str) -> list[str]:
    """Return the cells of the last printed line of the method."""
    line = [line for line in shown(console).splitlines() if f" {method} " in line][-1]
    return [cell.strip() for cell in line.strip().strip("│").split("│")]


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    """Return runs of two methods with three seeds, none of which was run."""
    return [Run(f"{m}{s}", {"method": m, "seed": s}, ConfigDict(), tmp_path / f"{m}{s}") for m in ("full", "lora") for s in range(3)]


def end(runs: list[Run], i: int, test: float | None = None) -> None:
    """Mark run `i` as finished with the test accuracy, or as failed if there is none."""
    result = sweeps.result(test, dev=test + 0.01) if test else None
    runs[i] = dataclasses.replace(runs[i], result=result, error="" if test else "OSError: no space")


def test_cells_show_results_as_they_arrive(runs):
    with board(runs)[0] as live:
        console = live._console
        assert cells(console, "full") == ["full", "0 of 3", "", ""] and "0 of 6 runs ended; 0 s" in shown(console)
        end(runs, 0, 0.90)
        live.refresh()
        assert cells(console, "full") == ["full", "1 of 3", "90.0", "91.0"]
        end(runs, 1, 0.94)
        live.refresh()
        assert cells(console, "full") == ["full", "2 of 3", "92.0 ± 2.8", "93.0 ± 2.8"]
        assert cells(console, "lora") == ["lora", "0 of 3", "", ""]


def test_failed_runs_are_shown_and_hide_no_scores(runs):
    live, console = board(runs)
    with live:
        end(runs, 3)
        live.refresh()
        assert cells(console, "lora") == ["lora", "0 of 3", "failed", ""] and "1 of 6 runs ended, 1 failed;" in shown(console)
        end(runs, 4, 0.5)
        live.refresh()
        assert cells(console, "lora") == ["lora", "1 of 3", "50.0", "51.0"]
        assert "failed" not in cells(console, "full")


def test_the_time_left_is_estimated_from_the_runs_that_ended_in_this_process(runs, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    end(runs, 0, 0.9)  # in an earlier process
    live, console = board(runs)
    with live:
        now += 50
        live.refresh()
        assert "1 of 6 runs ended; 50 s\n" in shown(console).replace("\r", "\n") + "\n" and "left" not in shown(console)
        end(runs, 1, 0.9)
        live.refresh()
        assert "2 of 6 runs ended; 50 s, about 3 min left" in shown(console)  # 4 of 50 s each
        for i in range(2, 6):
            end(runs, i, 0.9)
        live.refresh()
    assert shown(console).count("left") == 1 and "6 of 6 runs ended; 50 s" in shown(console)


def test_the_last_table_shows_the_final_state_and_stays(runs):
    live, console = board(runs)
    with live:
        for i in range(6):
            end(runs, i, 0.9)
    assert cells(console, "lora") == ["lora", "3 of 3", "90.0 ± 0.0", "91.0 ± 0.0"] and "6 of 6 runs ended" in shown(console)
    assert "\x1b[2K" not in console.file.getvalue().rpartition("6 of 6 runs ended")[2], "the last table must not be erased"


def test_long_tables_are_cut(tmp_path):
    many = [Run(str(i), {"learning_rate": i}, ConfigDict(), tmp_path) for i in range(progress.MAX_ROWS + 3)]
    with board(many)[0] as live:
        assert "and 3 more settings" in shown(live._console)
    with board(many[: progress.MAX_ROWS])[0] as live:
        assert "more settings" not in shown(live._console)


def test_without_a_terminal_only_messages_are_printed(runs):
    for terminal in (False, True):
        live, console = board(runs, terminal)
        with live:
            end(runs, 0, 0.9)
            live.refresh()
            live.say("full seed=0: [done]")
        assert ("full seed=0: [done]\n" == shown(console)) is not terminal
        assert "full seed=0: [done]" in shown(console)


def test_durations_have_readable_units():
    assert [writer.duration(s) for s in (0.4, 99, 100, 5999, 6000, 90000)] == ["0 s", "99 s", "2 min", "100 min", "1.7 h", "25.0 h"]
