"""Published results: the cells of papers' tables, their sources, and the runs that would reproduce them. Imports no jax.

`configs/papers/<paper>_<table>.py` defines `published()`, which returns a `Table`, and the `base(words)` and `sweep(words)` of an ablation,
which by default have the paper's setup. `research.ablation.report.reproduction` compares the runs with the table.

python -m research.ablation.report.published    # one line per table: how many cells can be run, and what the others need
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

# Metric of a table -> function from a run's metrics to percent. Cells that cannot be run yet may have other metrics.
METRICS = {
    "accuracy": lambda scores: 100 * scores["accuracy"],
    "error": lambda scores: 100 * (1 - scores["accuracy"]),
    "f1": lambda scores: 100 * scores["f1"],
}


@dataclass(frozen=True)
class PublishedCell:
    """A published number as printed: mean `value` and standard deviation `sd` over `n` runs, in percent; None if the paper does not say.

    `row`: the paper's name for it. `source`: table, row and column, or passage. `setting`: overrides that select exactly one setting of
    the sweep. `split` and `metric`: what the run reports; an empty metric stands for the table's metric. `blocked_by`: features that the
    project lacks; such a cell has no setting. `known_deviation`: an important difference from the paper that no config can remove.
    `config`: the paper's config, set by `read`.
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
    """A table of a paper. `margin`: differences up to so many points count as equal. `blocked_by`: missing features that all cells need.

    `examples`: task -> split -> number of examples in the paper; without a dev split there, dev is split off train here. `notes`: how much
    of the recipe is known, and minor differences.
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
        """Return the missing features that `cell` needs; empty if it can be run."""
        return (*self.blocked_by, *cell.blocked_by)

    def metric_of(self, cell: PublishedCell) -> str:
        """Return the metric of `cell`."""
        return cell.metric or self.metric


def of_setting(setting: Overrides, overrides: Overrides) -> bool:
    """Return whether a run with these overrides belongs to the setting."""
    return all(name in overrides and overrides[name] == value for name, value in setting.items())


def read(path: str) -> Table | None:
    """Return the table in FILE.py[:WORDS], with the paper's config in each cell that can be run; None if the file has no `published`.

    Raises InputError on an invalid cell: without a source, with a setting that does not select exactly one setting of the sweep, or with
    the same setting, split and metric as another cell.
    """
    file = path.partition(":")[0]
    imported, _ = sweeps.module(file)
    if not hasattr(imported, "published"):
        return None
    table = imported.published()
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
                raise InputError(f"{file}: the cells {claimed[key]!r} and {cell.row!r} have the same setting, {setting}")
            claimed[key] = cell.row
            cell = dataclasses.replace(cell, config=fields.override(base(), setting))
        cells.append(cell)
    return dataclasses.replace(table, cells=tuple(cells))


def _check(file: str, table: Table, cell: PublishedCell) -> None:
    if not cell.source.strip():
        raise InputError(f"{file}: the cell {cell.row!r} has no source; give the table, row and column where it is printed")
    if cell.sd is not None and (cell.n is None or cell.n < 2):
        raise InputError(f"{file}: the cell {cell.row!r} has a standard deviation sd, but no number of runs n of at least 2")
    metric = table.metric_of(cell)
    if metric not in METRICS and not table.waiting(cell):
        raise InputError(f"{file}: the metric {metric!r} of {cell.row!r} is not known; {nearest(metric, METRICS)}")
    if table.waiting(cell) and cell.setting:
        raise InputError(f"{file}: the cell {cell.row!r} is blocked by {', '.join(table.waiting(cell))}, but has a setting")


def _settings(sweep: Iterable[Overrides]) -> list[Overrides]:
    """Return the distinct overrides of the sweep without the seed."""
    settings = []
    for overrides in sweep:
        setting = {name: value for name, value in overrides.items() if name != "seed"}
        if setting not in settings:
            settings.append(setting)
    return settings


def _setting(file: str, cell: PublishedCell, settings: list[Overrides]) -> Overrides:
    """Return the only setting of the sweep that the cell's setting selects."""
    matches = [setting for setting in settings if of_setting(cell.setting, setting)]
    if len(matches) != 1:
        count = "no setting" if not matches else f"{len(matches)} settings"
        raise InputError(f"{file}: the cell {cell.row!r} must select one setting, but {cell.setting} matches {count} of the sweep")
    return matches[0]


def overview(paths: Iterable[str]) -> str:
    """Return a Markdown table: for each file, how many cells can be run, how many are blocked, and the features that those need."""
    lines = ["| table | paper | cells that run | waiting | for |", "|---|---|---|---|---|"]
    for path in paths:
        if (table := read(str(path))) is None:
            continue
        waiting = [table.waiting(cell) for cell in table.cells if table.waiting(cell)]
        missing = dict.fromkeys(feature for blocked_by in waiting for feature in blocked_by)
        cells = str(len(table.cells) - len(waiting)), str(len(waiting) or ""), "; ".join(missing)
        lines.append(f"| `{os.path.relpath(path)}` | {table.paper}, {table.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(overview(sorted((files.folder() / "papers").glob("[a-z]*.py"))), end="")
