"""What papers published: the cells of their tables, where each is printed, and which of our runs would reproduce it. Imports no jax.

`configs/papers/<paper>_<table>.py` has `published()`, which returns a `Table`, beside the `base(words)` and `sweep(words)` of an ablation,
which with their default words run what the paper did. `research.ablation.report.reproduction` compares the runs with the table.

python -m research.ablation.report.published    # a line for each table: what can run, what waits, and for what
"""

import dataclasses
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ml_collections import ConfigDict

from research.ablation import sweep as sweeps
from research.ablation.sweep import Overrides
from research.config import fields, files
from research.errors import InputError, nearest

# Metric of a table -> how it is made of what a run reports, in percent. Others may stand in cells that wait.
METRICS = {
    "accuracy": lambda scores: 100 * scores["accuracy"],
    "error": lambda scores: 100 * (1 - scores["accuracy"]),
    "f1": lambda scores: 100 * scores["f1"],
}


@dataclass(frozen=True)
class PublishedCell:
    """A published number, as printed: `value` and `sd` in percent, `sd` over `n` runs; None is what the paper does not say.

    `row`: what the paper calls it. `source`: table, row and column, or the passage. `setting`: overrides that its runs in the sweep have
    in common, and no other setting has. `split` and `metric` are of the run; an empty metric is the table's. `blocked_by`: what the project
    does not have yet; then there is no setting. `known_deviation`: a difference between our runs and the paper's that matters and that no
    config can mend. `config`: what the paper ran, filled in by `read`.
    """

    row: str
    value: float
    source: str
    setting: Overrides = dataclasses.field(default_factory=dict)
    sd: float | None = None
    n: int | None = None
    metric: str = ""
    split: str = "test"
    blocked_by: tuple[str, ...] = ()
    known_deviation: str = ""
    config: ConfigDict | None = None


@dataclass(frozen=True)
class Table:
    """A paper's table. `margin`: a difference of so many points is none. `blocked_by`: what all its cells wait for.

    `examples`: task -> split -> how many the paper had; where it names no dev split, ours is cut from train. `notes`: how far the recipe
    is known, and smaller differences.
    """

    paper: str
    title: str
    name: str
    metric: str
    margin: float
    cells: tuple[PublishedCell, ...]
    blocked_by: tuple[str, ...] = ()
    examples: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def waiting(self, cell: PublishedCell) -> tuple[str, ...]:
        """What `cell` waits for; empty where it can run."""
        return (*self.blocked_by, *cell.blocked_by)

    def metric_of(self, cell: PublishedCell) -> str:
        """The metric that `cell` is in."""
        return cell.metric or self.metric


def of_setting(setting: Overrides, overrides: Overrides) -> bool:
    """Whether a run with these overrides is one of the setting."""
    return all(name in overrides and overrides[name] == value for name, value in setting.items())


def read(path: str) -> Table | None:
    """The table in FILE.py[:WORDS], each cell that can run with the config of the paper; None where the file has no `ledger`.

    Raises InputError on a cell without a source, one whose setting is not one of the sweep, or one that another has claimed.
    """
    file = path.partition(":")[0]
    found, _ = sweeps.module(file)
    if not hasattr(found, "published"):
        return None
    table = found.published()
    for cell in table.cells:
        _check(file, table, cell)
    if all(table.waiting(cell) for cell in table.cells):
        return table
    base, sweep = sweeps.load(file)
    settings, claimed, cells = _settings(sweep), {}, []
    for cell in table.cells:
        if not table.waiting(cell):
            setting = _setting(file, cell, settings)
            key = repr(setting), cell.split, table.metric_of(cell)
            if key in claimed:
                raise InputError(f"{file}: {claimed[key]!r} and {cell.row!r} claim one setting, {setting}")
            claimed[key] = cell.row
            cell = dataclasses.replace(cell, config=fields.override(base(), setting))
        cells.append(cell)
    return dataclasses.replace(table, cells=tuple(cells))


def _check(file: str, table: Table, cell: PublishedCell) -> None:
    if not cell.source.strip():
        raise InputError(f"{file}: the cell {cell.row!r} has no source; say which table, row and column it is printed in")
    if cell.sd is not None and (cell.n is None or cell.n < 2):
        raise InputError(f"{file}: the cell {cell.row!r} has a deviation, but not the number of runs that it is of, at least 2")
    metric = table.metric_of(cell)
    if metric not in METRICS and not table.waiting(cell):
        raise InputError(f"{file}: the metric {metric!r} of {cell.row!r} is not known; {nearest(metric, METRICS)}")
    if table.waiting(cell) and cell.setting:
        raise InputError(f"{file}: the cell {cell.row!r} waits for {', '.join(table.waiting(cell))}, but has a setting")


def _settings(sweep: Iterable[Overrides]) -> list[Overrides]:
    """What runs that differ in nothing but the seed have in common, each once."""
    found = []
    for overrides in sweep:
        setting = {name: value for name, value in overrides.items() if name != "seed"}
        if setting not in found:
            found.append(setting)
    return found


def _setting(file: str, cell: PublishedCell, settings: list[Overrides]) -> Overrides:
    """The one setting of the sweep that is the cell's."""
    there = [setting for setting in settings if of_setting(cell.setting, setting)]
    if len(there) != 1:
        count = "no setting" if not there else f"{len(there)} settings"
        raise InputError(f"{file}: the cell {cell.row!r} is for {cell.setting}, and the sweep has {count} of that; give what one alone has")
    return there[0]


def overview(paths: Iterable[str]) -> str:
    """Markdown: a line for each file with a table, how many of its cells can run, how many wait, and what for."""
    lines = ["| table | paper | cells that run | waiting | for |", "|---|---|---|---|---|"]
    for path in paths:
        if (table := read(str(path))) is None:
            continue
        waiting = [table.waiting(cell) for cell in table.cells if table.waiting(cell)]
        wanted = dict.fromkeys(what for blocked_by in waiting for what in blocked_by)
        cells = str(len(table.cells) - len(waiting)), str(len(waiting) or ""), "; ".join(wanted)
        lines.append(f"| `{os.path.relpath(path)}` | {table.paper}, {table.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(overview(sorted((files.folder() / "papers").glob("[a-z]*.py"))), end="")
