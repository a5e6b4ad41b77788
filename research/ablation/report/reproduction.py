"""Compare runs with published numbers: a verdict and a reason for each cell of a paper's table. Imports no jax.

within          the 95% interval of the difference (measured - paper) lies inside the table's margin, whether or not it excludes 0
above, below    the interval excludes 0: our number is higher or lower; the reason says whether that is better (a lower error is better)
underpowered    the interval allows no conclusion, or there is a single run; the reason gives the number of seeds needed
failed, not run there is no result; the reason gives the error
not comparable  the runs' config differs from the paper's, or the cell has a known deviation; the reason lists the differences
shape only      the model or the data are stand-ins for the paper's: the result shows that the code works, and reproduces nothing
waiting         the project lacks a feature that the cell needs
"""

from collections.abc import Sequence
from dataclasses import dataclass

from research.ablation.report import statistics, tables
from research.ablation.report.published import METRICS, PublishedCell, Table, of_setting
from research.ablation.run import Run
from research.config import recorded
from research.errors import InputError
from research.experiment import workdir as workdirs

# Fields (for `is_one_of`) that may differ from the paper's config: seeds, file locations, compute cost, precision, batch layout.
IGNORED = ("seed", "data.seed", "data.path", "weights.pickle", "checkpoint_", *workdirs.COSTS)
IGNORED += ("precision", "packing", "accumulate")
STAND_INS = ("model", "weights.source", "weights.sha256", "task", "data.source", "data.train_examples", "data.eval_examples")
SAME_DATA = ("tfds", "files")
NOTE = """
Numbers are in percent, in the paper's metric (an error rate stays an error rate): mean ± standard deviation, number of runs n, Student's
95% interval of their mean. "Measured - paper" is the difference with its 95% interval by Welch's test. If the paper gives no deviation,
that of the runs counts for both; if it gives no number of runs, n is 1. within: the interval is inside ± {margin:g} points. above,
below: the interval excludes 0. underpowered: neither. Intervals are cut at the ends of the scale, 0 and 100. failed, not run: there is no
result. not comparable: the runs' config differs from the paper's. shape only: stand-in model or data, not a reproduction. waiting: cannot
be run yet. There is no correction for multiple comparisons: of twenty cells that do reproduce the paper, one is expected to be above or
below.
"""


@dataclass(frozen=True)
class Outcome:
    """The verdict `name` on a cell with its reason, our scores [n] in the cell's metric, and their mean minus the published value."""

    cell: PublishedCell
    name: str
    reason: str
    scores: tuple[float, ...] = ()
    difference: statistics.Estimate | None = None


def judge(table: Table, cell: PublishedCell, runs: Sequence[Run]) -> Outcome:
    """Return the verdict on `cell`, from the runs of the sweep that belong to its setting."""
    if blocked_by := table.waiting(cell):
        return Outcome(cell, "waiting", f"for {'; '.join(blocked_by)}")
    cell_runs = [run for run in runs if of_setting(cell.setting, run.overrides)]
    done = [run for run in cell_runs if run.result]
    if not done:
        failed = next((run for run in cell_runs if run.error), None)
        return Outcome(cell, failed.status, failed.error.splitlines()[0]) if failed else Outcome(cell, "not run", "no run has finished")
    score_of = METRICS[table.metric_of(cell)]
    scores = tuple(score_of(run.result["metrics"][cell.split]) for run in done)
    stand_ins, deviations = _known_deviations(table, cell, done)
    if stand_ins:
        return Outcome(cell, "shape only", "; ".join(stand_ins), scores)
    difference = statistics.published_difference(scores, cell.value, cell.sd, cell.n) if len(scores) > 1 else None
    if deviations:
        return Outcome(cell, "not comparable", "; ".join(deviations), scores, difference)
    if not difference:
        return Outcome(cell, "underpowered", "a single run gives no standard deviation; at least two are needed", scores)
    return Outcome(cell, *_compare(table, cell, scores, difference), scores, difference)


def _known_deviations(table: Table, cell: PublishedCell, runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """Return the differences from the paper's setup as text: first stand-ins for model or data, then all other relevant deviations."""
    stand_ins, deviations = [], [cell.known_deviation] if cell.known_deviation else []
    paper = recorded.flat(cell.config.to_dict())
    for run in runs:
        config = recorded.flat(run.config.to_dict())
        names = [name for name in sorted(config | paper) if config.get(name) != paper.get(name)]
        differing = {name: (config.get(name), paper.get(name)) for name in names}
        if differing.get("data.source", ("",))[0] in SAME_DATA:
            del differing["data.source"]
        texts = {name: f"{name} is {_to_text(here)}, in the paper {_to_text(there)}" for name, (here, there) in differing.items()}
        stand_ins += [texts[name] for name in STAND_INS if name in texts]
        deviations += [text for name, text in texts.items() if name not in STAND_INS and not workdirs.is_one_of(name, IGNORED)]
    if not stand_ins:
        published = table.examples.get(cell.config.task, {})
        stand_ins = [text for run in runs for text in _size_differences(published, run.result["data"]["sizes"])]
    return list(dict.fromkeys(stand_ins)), list(dict.fromkeys(deviations))


def _to_text(value: object) -> str:
    return "empty" if value in ("", None) else str(value)


def _size_differences(published: dict[str, int], sizes: dict[str, int]) -> list[str]:
    """Return a text for each split that differs from the published size; a dev split that the paper does not have counts as train."""
    cut_from_train = 0 if "dev" in published else sizes.get("dev", 0)
    counts = {split: sizes.get(split, 0) + (cut_from_train if split == "train" else 0) for split in published}
    return [f"{counts[split]:,} {split} examples, in the paper {n:,}" for split, n in published.items() if counts[split] != n]


def _compare(table: Table, cell: PublishedCell, scores: Sequence[float], difference: statistics.Estimate) -> tuple[str, str]:
    """Return the verdict's name and reason for runs that are comparable with the paper's."""
    margin = table.margin
    if -margin <= difference.low and difference.high <= margin:
        return "within", f"the interval is inside ± {margin:g}"
    if difference.low > 0 or difference.high < 0:
        higher = difference.low > 0
        better = higher != (table.metric_of(cell) == "error")
        return "above" if higher else "below", "better" if better else "worse"
    return "underpowered", _power_note(margin, scores, cell)


def _power_note(margin: float, scores: Sequence[float], cell: PublishedCell) -> str:
    """Return how many seeds would detect a difference of `margin`, and how many there are."""
    our_sd = statistics.mean_and_sd(scores)[1]
    sds = [sd for sd in (our_sd, our_sd if cell.sd is None else cell.sd) if sd > 1e-9]
    if not sds:
        return "all runs have the same score, so there is no spread to compare with"
    available = f"there are {len(scores)} here and {cell.n or 'one, if not stated,'} in the paper"
    try:
        needed = f"detecting a difference of {margin:g} with 80% power takes {statistics.seeds_needed(margin, *sds):,} seeds of each"
    except InputError as error:
        needed = str(error)
    return f"{needed}; {available}"


def markdown(table: Table, runs: Sequence[Run]) -> str:
    """Return a Markdown table with the published score, our score, the difference and the verdict for each cell, and notes under it."""
    lines = [f"{table.paper}: {table.name} ({table.metric}). {table.title}", ""]
    header = ("setting", "paper", "measured", "95% interval", "measured - paper", "verdict", "why", "source")
    lines += [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    digits = max((len(repr(cell.value).partition(".")[2]) for cell in table.cells), default=1)
    lines += [f"| {' | '.join(_row(table, judge(table, cell, runs), digits))} |" for cell in table.cells]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n" + NOTE.format(margin=table.margin)


def _row(table: Table, outcome: Outcome, digits: int) -> list[str]:
    cell, scores, metric = outcome.cell, outcome.scores, outcome.cell.metric
    measured = interval = difference = ""
    if len(scores) > 1:
        mean, sd = statistics.mean_and_sd(scores)
        measured, interval = _score_text(mean, sd, len(scores), digits), tables.span(scores, digits)
    elif scores:
        measured = _score_text(scores[0], None, 1, digits)
    if outcome.difference:
        d = outcome.difference.cut(-100, 100)
        ends = f"{d.low:+.{digits}f} to {d.high:+.{digits}f}" if d.bounded else tables.NO_SPREAD
        difference = f"{d.mean:+.{digits}f} ({ends})"
    row = f"{cell.row} ({metric})" if metric and metric != table.metric else cell.row
    reason = " ".join(outcome.reason.replace("|", "/").split())
    return [row, _score_text(cell.value, cell.sd, cell.n, digits), measured, interval, difference, outcome.name, reason, cell.source]


def _score_text(mean: float, sd: float | None, n: int | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "") + (f", n {n}" if n else "")
