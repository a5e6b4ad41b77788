"""Whether our runs reproduce a published number: a verdict for each cell of a paper's table, and why. Imports no jax.

within          the whole 95% interval of ours - paper lies inside the table's margin, whether or not it excludes 0
above, below    it excludes 0: our number is higher, lower; why says whether that is better or worse (an error is better when lower)
underpowered    neither can be said, or there is a single run of ours; why says how many seeds would be needed
failed, not run there is no result of ours; why says what went wrong
not comparable  the runs' config is not the paper's, or differs from it in a way that the table knows of; why says in what
shape only      a stand-in for the paper's model or data: it shows that the pipeline works, and reproduces nothing
waiting         the project cannot do this yet
"""

from collections.abc import Sequence
from dataclasses import dataclass

from research.ablation.report import statistics, tables
from research.ablation.report.published import METRICS, PublishedCell, Table, of_setting
from research.ablation.runs import Run
from research.config import recorded
from research.errors import InputError
from research.experiment import workdir as workdirs

# What may differ between our runs and the paper's: chance, where the data lie, what a run costs, how its numbers are rounded and laid out.
FREE = ("seed", "data.seed", "data.path", "weights.pickle", "checkpoint_", *workdirs.COSTS)
FREE += ("precision", "packing", "accumulate")
STAND_INS = ("model", "weights.source", "weights.sha256", "task", "data.source", "data.train_examples", "data.eval_examples")
SAME_DATA = ("tfds", "files")
NOTE = """
Numbers are in percent, in the paper's own metric (an error stays an error): mean ± standard deviation, n runs, Student's 95% interval of
our mean. "Ours - paper" has its 95% interval: by Welch's test from both means and deviations where the paper gives its own over n runs;
else with our deviation for the paper's too, and, where it does not say of how many runs a number is, of one. within: the whole
interval is inside ± {margin:g} points. above, below: it excludes 0. underpowered: neither. Intervals are cut at the ends of the scale,
0 and 100. failed, not run: there is no run of ours. not comparable: the runs' config is not the
paper's. shape only: a stand-in model or stand-in data, no reproduction. waiting: cannot be run yet. There is no correction over the table:
of twenty cells that are reproduced, one is expected to be said to be above or below.
"""


@dataclass(frozen=True)
class Verdict:
    """What is said of a cell, and why; our runs' scores [n] in the cell's metric, and their mean less the published one."""

    cell: PublishedCell
    name: str
    why: str
    scores: tuple[float, ...] = ()
    difference: statistics.Estimate | None = None


def judge(table: Table, cell: PublishedCell, runs: Sequence[Run]) -> Verdict:
    """The verdict on `cell` from those of the sweep's `runs` that are of its setting."""
    if blocked_by := table.waiting(cell):
        return Verdict(cell, "waiting", f"for {'; '.join(blocked_by)}")
    own = [run for run in runs if of_setting(cell.setting, run.overrides)]
    done = [run for run in own if run.result]
    if not done:
        broken = next((run for run in own if run.error), None)
        return Verdict(cell, broken.status, broken.error.splitlines()[0]) if broken else Verdict(cell, "not run", "no run has finished")
    of_run = METRICS[table.metric_of(cell)]
    scores = tuple(of_run(run.result["metrics"][cell.split]) for run in done)
    stand_ins, deviations = _known_deviations(table, cell, done)
    if stand_ins:
        return Verdict(cell, "shape only", "; ".join(stand_ins), scores)
    difference = statistics.published_difference(scores, cell.value, cell.sd, cell.n) if len(scores) > 1 else None
    if deviations:
        return Verdict(cell, "not comparable", "; ".join(deviations), scores, difference)
    if not difference:
        return Verdict(cell, "underpowered", "a single run has no spread; two are the least", scores)
    return Verdict(cell, *_compare(table, cell, scores, difference), scores, difference)


def _known_deviations(table: Table, cell: PublishedCell, runs: Sequence[Run]) -> tuple[list[str], list[str]]:
    """How runs differ from what the paper ran: in words, what makes them stand-ins, and what else matters."""
    stand_ins, deviations = [], [cell.known_deviation] if cell.known_deviation else []
    theirs = recorded.flat(cell.config.to_dict())
    for run in runs:
        ours = recorded.flat(run.config.to_dict())
        apart = {name: (ours.get(name), theirs.get(name)) for name in sorted(ours | theirs) if ours.get(name) != theirs.get(name)}
        if apart.get("data.source", ("",))[0] in SAME_DATA:
            del apart["data.source"]
        said = {name: f"{name} is {_value(mine)}, the paper's {_value(wanted)}" for name, (mine, wanted) in apart.items()}
        stand_ins += [said[name] for name in STAND_INS if name in said]
        deviations += [words for name, words in said.items() if name not in STAND_INS and not name.startswith(FREE)]
    if not stand_ins:
        published = table.examples.get(cell.config.task, {})
        stand_ins = [words for run in runs for words in _missing(published, run.result["data"]["sizes"])]
    return list(dict.fromkeys(stand_ins)), list(dict.fromkeys(deviations))


def _value(value: object) -> str:
    return "empty" if value in ("", None) else str(value)


def _missing(published: dict[str, int], sizes: dict[str, int]) -> list[str]:
    """Splits that are not of the published size; a dev split that the paper does not have counts as train."""
    spare = 0 if "dev" in published else sizes.get("dev", 0)
    ours = {split: sizes.get(split, 0) + (spare if split == "train" else 0) for split in published}
    return [f"{ours[split]:,} {split} examples, the paper's {n:,}" for split, n in published.items() if ours[split] != n]


def _compare(table: Table, cell: PublishedCell, scores: Sequence[float], difference: statistics.Estimate) -> tuple[str, str]:
    """Name and why, for runs that are comparable."""
    margin = table.margin
    if -margin <= difference.low and difference.high <= margin:
        return "within", f"the interval is inside ± {margin:g}"
    if difference.low > 0 or difference.high < 0:
        higher = difference.low > 0
        better = higher != (table.metric_of(cell) == "error")
        return "above" if higher else "below", "better" if better else "worse"
    return "underpowered", _seeds(margin, scores, cell)


def _seeds(margin: float, scores: Sequence[float], cell: PublishedCell) -> str:
    own = statistics.mean_and_sd(scores)[1]
    sds = [sd for sd in (own, own if cell.sd is None else cell.sd) if sd > 1e-9]
    if not sds:
        return "the runs show no spread at all"
    here = f"here are {len(scores)}, the paper has {cell.n or 'one, as far as it says'}"
    try:
        needed = f"to find a difference of {margin:g} four times in five takes {statistics.seeds_needed(margin, *sds):,} seeds of each"
    except InputError as error:
        needed = str(error)
    return f"{needed}; {here}"


def markdown(table: Table, runs: Sequence[Run]) -> str:
    """The table: paper, ours, difference and verdict for each cell; under it what was computed and what the paper leaves open."""
    lines = [f"{table.paper}: {table.name} ({table.metric}). {table.title}", ""]
    header = ("setting", "paper", "ours", "95% interval", "ours - paper", "verdict", "why", "source")
    lines += [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    digits = max((len(repr(cell.value).partition(".")[2]) for cell in table.cells), default=1)
    lines += [f"| {' | '.join(_row(table, judge(table, cell, runs), digits))} |" for cell in table.cells]
    notes = [f"- {note}" for note in table.notes]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n" + NOTE.format(margin=table.margin)


def _row(table: Table, verdict: Verdict, digits: int) -> list[str]:
    cell, scores, metric = verdict.cell, verdict.scores, verdict.cell.metric
    own = span = apart = ""
    if len(scores) > 1:
        mean, sd = statistics.mean_and_sd(scores)
        own, span = _said(mean, sd, len(scores), digits), tables.span(scores, digits)
    elif scores:
        own = _said(scores[0], None, 1, digits)
    if verdict.difference:
        d = verdict.difference.cut(-100, 100)
        ends = f"{d.low:+.{digits}f} to {d.high:+.{digits}f}" if d.bounded else tables.NO_SPREAD
        apart = f"{d.mean:+.{digits}f} ({ends})"
    row = f"{cell.row} ({metric})" if metric and metric != table.metric else cell.row
    why = " ".join(verdict.why.replace("|", "/").split())
    return [row, _said(cell.value, cell.sd, cell.n, digits), own, span, apart, verdict.name, why, cell.source]


def _said(mean: float, sd: float | None, n: int | None, digits: int) -> str:
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "") + (f", n {n}" if n else "")
