"""Tables of runs: one line per setting with its interval and its difference to the first setting, or one line per run."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.ablation.report import per_example, statistics
from research.ablation.report.remarks import remarks
from research.ablation.run import Run
from research.tasks.selection import scale

COLUMNS = (
    "test",
    "95% interval",
    "to the first",
    "p",
    "over examples",
    "dev",
    "trainable parameters",
    "training s",
    "training TFLOP",
    "relative to the first",
)
SIGNIFICANCE = 0.05
NO_SPREAD = "n/a: no spread"
NOTE = """
Scores are in percent: mean ± standard deviation over n seeds, and Student's 95% interval of the mean. "To the first" is the difference
to the first setting with its 95% interval, from the paired t test if both settings have the same seeds, otherwise from Welch's test
(marked w). p is two-sided, after Holm's correction over the table. Intervals are cut at the ends of the scale: 0 and 100, for differences
-100 and 100. "n/a: no spread" means that all scores, or all differences, are equal, so there is no interval or p. "Over examples" is the
difference in accuracy, averaged over seeds, with its 95% bootstrap interval over the test examples: it shows the uncertainty from the
choice of test examples, the columns before it that from the choice of seeds. Between single seeds it has McNemar's p (marked m), with the
same correction. It is blank without predictions on the same examples. Bold marks the best setting if it differs from every other setting
with p < 0.05, after Holm's correction over these comparisons. A single seed has no interval and no test over seeds, and is never bold.
"""


@dataclass(frozen=True)
class Setting:
    """Runs that differ only in the seed."""

    values: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[Run]:
        """Return the runs that have a result."""
        return [run for run in self.runs if run.result]

    @property
    def results(self) -> dict[int, dict[str, Any]]:
        """Return seed -> result; a run without a seed in its overrides counts as seed 0."""
        return {run.overrides.get("seed", 0): run.result for run in self.finished}

    @property
    def errors(self) -> list[str]:
        """Return the distinct errors of the runs, as `status: error`."""
        return sorted({f"{run.status}: {run.error}" for run in self.runs if run.error})

    def scores(self, split: str) -> dict[int, float]:
        """Return seed -> the run's selection metric on `split`, in percent if the metric is a fraction."""
        metric = lambda result: scale(result["selection"]) * result["metrics"][split][result["selection"]["metric"]]  # noqa: E731
        return {seed: metric(result) for seed, result in self.results.items()}

    def cost(self, name: str) -> float:
        """Return the mean over seeds of an entry of `speed`."""
        return float(np.mean([result["speed"][name] for result in self.results.values()]))


def settings(runs: Sequence[Run]) -> list[Setting]:
    """Group the runs by their overrides without the seed, in order of appearance."""
    groups: dict[tuple[tuple[str, Any], ...], list] = {}
    for run in runs:
        setting = tuple((name, value) for name, value in run.overrides.items() if name != "seed")
        groups.setdefault(setting, []).append(run)
    return [Setting(dict(setting), tuple(members)) for setting, members in groups.items()]


def difference(a: Setting, b: Setting) -> tuple[statistics.Estimate, bool] | None:
    """Return the test score of `a` minus that of `b`, and whether the test is paired by seed; None if one has fewer than two seeds."""
    x, y = a.scores("test"), b.scores("test")
    if min(len(x), len(y)) < 2:
        return None
    if x.keys() == y.keys():
        return statistics.paired_difference(list(x.values()), [y[seed] for seed in x]), True
    return statistics.unpaired_difference(list(x.values()), list(y.values())), False


def significantly_best(settings: Sequence[Setting]) -> Setting | None:
    """Return the setting with the highest mean test score if it differs significantly from every other one after correction, or None."""
    finished = [setting for setting in settings if setting.results]
    best = max(finished, key=lambda setting: np.mean(list(setting.scores("test").values())), default=None)
    tests = [difference(best, other) for other in finished if other is not best]
    testable = tests and all(test and test[0].p is not None for test in tests)
    return best if testable and max(statistics.holm([test.p for test, _ in tests])) < SIGNIFICANCE else None


def rows(runs: Sequence[Run]) -> list[list[str]]:
    """Return the header and the cells of the table, as plain text except for `**` around bold text."""
    groups = settings(runs)
    names, best, first = list(dict.fromkeys(name for one in groups for name in one.values)), significantly_best(groups), groups[0]
    tests = {i: test for i, setting in enumerate(groups[1:], 1) if (test := difference(setting, first))}
    over = {i: test for i, setting in enumerate(groups[1:], 1) if (test := per_example.difference(setting.finished, first.finished))}
    seed_ps = _corrected({i: test.p for i, (test, _) in tests.items()})
    example_ps = _corrected({i: test.p for i, test in over.items() if test.p is not None})
    lines = [[*names, "n", *COLUMNS]]
    for i, setting in enumerate(groups):
        n, count = len(setting.results), len(setting.runs)
        cells = [*(str(setting.values.get(name, "")) for name in names), str(n) if n == count else f"{n} of {count}"]
        if n:
            differences = [_difference(*tests.get(i, ())), seed_ps.get(i, ""), _over_examples(over.get(i), example_ps.get(i))]
            cells += [*_scores(setting, setting is best), *differences, *_costs(setting, first)]
        else:
            cells += ["; ".join(setting.errors or sorted({run.status for run in setting.runs}, reverse=True))] + [""] * (len(COLUMNS) - 1)
        lines.append(cells)
    return lines


def _corrected(ps: dict[int, float | None]) -> dict[int, str]:
    """Return the p values as text, after Holm's correction over the values that are not None."""
    known = {i: p for i, p in ps.items() if p is not None}
    corrected = dict(zip(known, statistics.holm(list(known.values())), strict=True))
    return {i: NO_SPREAD if p is None else "< 0.001" if corrected[i] < 0.001 else f"{corrected[i]:.3f}" for i, p in ps.items()}


def _scores(setting: Setting, best: bool) -> list[str]:
    scores = list(setting.scores("test").values())
    text = f"**{mean(scores)}**" if best else mean(scores)
    if len(scores) < 2:
        return [text, ""]
    return [text, span(scores)]


def span(scores: Sequence[float], digits: int = 1) -> str:
    """Return the 95% interval of the mean of at least two scores, in percent, clipped to 0 and 100, as text."""
    interval = statistics.interval(scores).cut(0, 100)
    return f"{interval.low:.{digits}f} to {interval.high:.{digits}f}" if interval.bounded else NO_SPREAD


def mean(scores: Sequence[float]) -> str:
    """Return mean ± standard deviation as text; for a single score, the score."""
    if len(scores) < 2:
        return f"{scores[0]:.1f}"
    return "{:.1f} ± {:.1f}".format(*statistics.mean_and_sd(scores))


def _difference(estimate: statistics.Estimate | None = None, paired: bool = True) -> str:
    if not estimate:
        return ""
    cut = estimate.cut(-100, 100)
    interval = f" ({cut.low:+.1f} to {cut.high:+.1f})" if cut.bounded else f" ({NO_SPREAD})" if cut.p is None else ""
    return f"{estimate.mean:+.1f}{interval}{'' if paired else ' w'}"


def _over_examples(estimate: statistics.Estimate | None, p: str | None) -> str:
    if not p:
        return _difference(estimate)
    return f"{_difference(estimate)} (p {p if p.startswith('<') else f'= {p}'}, m)"


def _costs(setting: Setting, first: Setting) -> list[str]:
    flops = setting.cost("train_flops")
    first_flops = first.cost("train_flops") if first.results else 0
    return [
        mean(list(setting.scores("dev").values())),
        f"{next(iter(setting.results.values()))['params']['trainable']:,}",
        f"{setting.cost('train_s'):.0f}",
        f"{flops / 1e12:.1f}",
        f"{flops / first_flops:.2f}" if first_flops else "",
    ]


def power_note(runs: Sequence[Run]) -> str:
    """Return how many seeds would detect a difference of one point, given the observed spread; empty without a usable spread."""
    groups = settings(runs)
    pairs = [(one.scores("test"), groups[0].scores("test")) for one in groups[1:] if one.results.keys() == groups[0].results.keys()]
    sds = [statistics.mean_and_sd([x[seed] - y[seed] for seed in x])[1] for x, y in pairs if len(x) > 1]
    median = float(np.median(sds)) if sds else 0.0
    if not 0.05 <= median < 25:  # a smaller value is only rounding, a larger one would need thousands of seeds
        return ""
    seeds = statistics.seeds_needed(1.0, median)
    text = f"Detecting a difference of 1.0 to the first setting with 80% power needs {seeds} seeds"
    return f"\n{text}, at the median standard deviation of the differences here ({median:.1f}).\n"


def notes(runs: Sequence[Run]) -> str:
    """Return the text under a table: remarks about its runs, then an explanation of the columns."""
    return remarks(runs) + NOTE + power_note(runs)


def markdown(runs: Sequence[Run]) -> str:
    """Return the table in Markdown, with its notes."""
    header, *body = rows(runs)
    lines = [f"| {' | '.join(line)} |" for line in ([header, *body])]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n" + notes(runs)


def latex(runs: Sequence[Run]) -> str:
    """Return the table in LaTeX for `\\usepackage{booktabs}`: one `tabular`, with the notes as comments under it."""
    header, *body = [[_tex(cell) for cell in line] for line in rows(runs)]
    lines = [f"{' & '.join(line)} \\\\" for line in body]
    columns = "l" * (len(header) - len(COLUMNS) - 1) + "r" * (len(COLUMNS) + 1)
    table = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", f"{' & '.join(header)} \\\\", "\\midrule", *lines, "\\bottomrule"]
    comments = [f"% {line}" for line in notes(runs).splitlines() if line]
    return "\n".join([*table, "\\end{tabular}", *comments]) + "\n"


def _tex(cell: str) -> str:
    escapes = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "<": "$<$",
        ">": "$>$",
        "|": "$|$",
    }
    text = "".join(escapes.get(c) or (f"\\{c}" if c in "&%$#_{}" else c) for c in " ".join(cell.split()))
    text = re.sub(r"(?<![\w$])-(?=\d)", "$-$", re.sub(r"(?<![\w$])\+(?=\d)", "$+$", text))
    return re.sub(r"\*\*(.+)\*\*", r"\\textbf{\1}", text)


def comma_separated(runs: Sequence[Run]) -> str:
    """Return CSV with a line for each run, finished or not: overrides, status, error, metrics as fractions, and costs."""
    lines = [{**run.overrides, "status": run.status, "error": run.error} | _flat(run.result) for run in runs]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for line in lines for name in line)), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _flat(result: dict[str, Any] | None) -> dict[str, Any]:
    if not result:
        return {}
    scores = {f"{split}.{name}": value for split, metrics in result["metrics"].items() for name, value in metrics.items()}
    costs = {"trainable": result["params"]["trainable"], **{name: result["speed"][name] for name in ("train_s", "train_flops")}}
    return {**scores, **costs, "config_hash": result.get("config_hash", ""), "sha256": result["params"].get("sha256", "")}
