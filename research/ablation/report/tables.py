"""From finished runs to tables: a line for each setting, with its interval and its difference to the first; a line for each run."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from research.ablation.report import per_example, statistics
from research.ablation.report.remarks import remarks
from research.ablation.runs import Run

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
SURE = 0.05
NO_SPREAD = "n/a: no spread"
NOTE = """
Scores are in percent: mean ± standard deviation over n seeds, and Student's 95% interval of the mean. "To the first" is the difference
to the first setting with its 95% interval: by the paired t test where both have the same seeds, else by Welch's (marked w). p is
two-sided, after Holm's correction over the table. Intervals are cut at the ends of the scale: 0 and 100, of differences -100 and 100.
"n/a: no spread" stands where all scores, or all differences, are equal: nothing is known of chance then. "Over examples" is the
difference in accuracy, seeds averaged, with its 95% bootstrap interval over the test examples: what other examples may change, as the
columns before say what other seeds may; between single seeds it has McNemar's p (marked m), corrected likewise; it is blank where there
are no predictions on the same examples. Bold is the best setting, only where it differs from every other one with p < 0.05, after
Holm's correction over these; a single seed has neither interval nor test over seeds, and is never bold.
"""


@dataclass(frozen=True)
class Setting:
    """The runs that differ in nothing but the seed."""

    values: dict[str, Any]
    runs: tuple[Run, ...]

    @property
    def finished(self) -> list[Run]:
        """Those that have a result."""
        return [run for run in self.runs if run.result]

    @property
    def results(self) -> dict[int, dict[str, Any]]:
        """Seed -> result; a sweep without seeds has seed 0."""
        return {run.overrides.get("seed", 0): run.result for run in self.finished}

    @property
    def errors(self) -> list[str]:
        """What went wrong, each once: `failed: why`."""
        return sorted({f"{run.status}: {run.error}" for run in self.runs if run.error})

    def scores(self, split: str) -> dict[int, float]:
        """Seed -> the task's own metric on `split`, in percent."""
        return {seed: 100 * one["metrics"][split][one["selection"]["metric"]] for seed, one in self.results.items()}

    def cost(self, name: str) -> float:
        """Mean over seeds of an entry of `speed`."""
        return float(np.mean([one["speed"][name] for one in self.results.values()]))


def settings(found: Sequence[Run]) -> list[Setting]:
    """The runs by what they differ in, in order of appearance."""
    groups: dict[tuple[tuple[str, Any], ...], list] = {}
    for run in found:
        setting = tuple((name, value) for name, value in run.overrides.items() if name != "seed")
        groups.setdefault(setting, []).append(run)
    return [Setting(dict(setting), tuple(runs)) for setting, runs in groups.items()]


def difference(a: Setting, b: Setting) -> tuple[statistics.Estimate, bool] | None:
    """Test score of a less that of b, and whether by pairs of one seed; None where one of them has fewer than two seeds."""
    x, y = a.scores("test"), b.scores("test")
    if min(len(x), len(y)) < 2:
        return None
    if x.keys() == y.keys():
        return statistics.paired_difference(list(x.values()), [y[seed] for seed in x]), True
    return statistics.unpaired_difference(list(x.values()), list(y.values())), False


def surely_best(found: Sequence[Setting]) -> Setting | None:
    """The setting with the highest mean test score, if it differs from each other one, after correction; None if there is none."""
    done = [setting for setting in found if setting.results]
    best = max(done, key=lambda setting: np.mean(list(setting.scores("test").values())), default=None)
    tests = [difference(best, other) for other in done if other is not best]
    sure = tests and all(test and test[0].p is not None for test in tests)
    return best if sure and max(statistics.holm([test.p for test, _ in tests])) < SURE else None


def rows(found: Sequence[Run]) -> list[list[str]]:
    """The table's header and cells, as plain text but for `**` around what is bold."""
    every = settings(found)
    names, best, first = list(dict.fromkeys(name for one in every for name in one.values)), surely_best(every), every[0]
    tests = {i: test for i, one in enumerate(every[1:], 1) if (test := difference(one, first))}
    over = {i: test for i, one in enumerate(every[1:], 1) if (test := per_example.difference(one.finished, first.finished))}
    ps = _corrected({i: test.p for i, (test, _) in tests.items()})
    ms = _corrected({i: test.p for i, test in over.items() if test.p is not None})
    lines = [[*names, "n", *COLUMNS]]
    for i, one in enumerate(every):
        n = len(one.results)
        cells = [*(str(one.values.get(name, "")) for name in names), str(n) if n == len(one.runs) else f"{n} of {len(one.runs)}"]
        if n:
            differences = [_difference(*tests.get(i, ())), ps.get(i, ""), _over_examples(over.get(i), ms.get(i))]
            cells += [*_scores(one, one is best), *differences, *_costs(one, first)]
        else:
            cells += ["; ".join(one.errors or sorted({run.status for run in one.runs}, reverse=True))] + [""] * (len(COLUMNS) - 1)
        lines.append(cells)
    return lines


def _corrected(ps: dict[int, float | None]) -> dict[int, str]:
    """As they are printed, after Holm's correction over those that there are."""
    there = {i: p for i, p in ps.items() if p is not None}
    corrected = dict(zip(there, statistics.holm(list(there.values())), strict=True))
    return {i: NO_SPREAD if p is None else "< 0.001" if corrected[i] < 0.001 else f"{corrected[i]:.3f}" for i, p in ps.items()}


def _scores(one: Setting, best: bool) -> list[str]:
    scores = list(one.scores("test").values())
    said = f"**{mean(scores)}**" if best else mean(scores)
    if len(scores) < 2:
        return [said, ""]
    return [said, span(scores)]


def span(scores: Sequence[float], digits: int = 1) -> str:
    """The 95% interval of the mean of two scores or more, in percent, cut at 0 and 100."""
    known = statistics.interval(scores).cut(0, 100)
    return f"{known.low:.{digits}f} to {known.high:.{digits}f}" if known.bounded else NO_SPREAD


def mean(scores: Sequence[float]) -> str:
    """Mean ± standard deviation; of a single score, itself."""
    if len(scores) < 2:
        return f"{scores[0]:.1f}"
    return "{:.1f} ± {:.1f}".format(*statistics.mean_and_sd(scores))


def _difference(estimate: statistics.Estimate | None = None, paired: bool = True) -> str:
    if not estimate:
        return ""
    cut = estimate.cut(-100, 100)
    apart = f" ({cut.low:+.1f} to {cut.high:+.1f})" if cut.bounded else f" ({NO_SPREAD})" if cut.p is None else ""
    return f"{estimate.mean:+.1f}{apart}{'' if paired else ' w'}"


def _over_examples(estimate: statistics.Estimate | None, p: str | None) -> str:
    if not p:
        return _difference(estimate)
    return f"{_difference(estimate)} (p {p if p.startswith('<') else f'= {p}'}, m)"


def _costs(one: Setting, first: Setting) -> list[str]:
    flops = one.cost("train_flops")
    beside = first.cost("train_flops") if first.results else 0
    return [
        mean(list(one.scores("dev").values())),
        f"{next(iter(one.results.values()))['params']['trainable']:,}",
        f"{one.cost('train_s'):.0f}",
        f"{flops / 1e12:.1f}",
        f"{flops / beside:.2f}" if beside else "",
    ]


def power_note(found: Sequence[Run]) -> str:
    """How many seeds a difference of one point would need, with the spread seen; empty where no spread is seen."""
    every = settings(found)
    pairs = [(one.scores("test"), every[0].scores("test")) for one in every[1:] if one.results.keys() == every[0].results.keys()]
    sds = [statistics.mean_and_sd([x[seed] - y[seed] for seed in x])[1] for x, y in pairs if len(x) > 1]
    typical = float(np.median(sds)) if sds else 0.0
    if not 0.05 <= typical < 25:  # below, rounding is what is seen; above, the answer would be thousands
        return ""
    seeds = statistics.seeds_needed(1.0, typical)
    return f"\nTo find a difference of 1.0 to the first four times in five, the usual spread here ({typical:.1f}) needs {seeds} seeds.\n"


def notes(found: Sequence[Run]) -> str:
    """What stands under a table: what there is to know of its runs, then what was computed."""
    return remarks(found) + NOTE + power_note(found)


def markdown(found: Sequence[Run]) -> str:
    """The table, and under it what was computed."""
    header, *body = rows(found)
    lines = [f"| {' | '.join(line)} |" for line in ([header, *body])]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n" + notes(found)


def latex(found: Sequence[Run]) -> str:
    """The same table for `\\usepackage{booktabs}`: one `tabular`, what was computed as comments under it."""
    header, *body = [[_tex(cell) for cell in line] for line in rows(found)]
    lines = [f"{' & '.join(line)} \\\\" for line in body]
    columns = "l" * (len(header) - len(COLUMNS) - 1) + "r" * (len(COLUMNS) + 1)
    table = [f"\\begin{{tabular}}{{{columns}}}", "\\toprule", f"{' & '.join(header)} \\\\", "\\midrule", *lines, "\\bottomrule"]
    comments = [f"% {line}" for line in notes(found).splitlines() if line]
    return "\n".join([*table, "\\end{tabular}", *comments]) + "\n"


def _tex(cell: str) -> str:
    plain = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "<": "$<$",
        ">": "$>$",
        "|": "$|$",
    }
    text = "".join(plain.get(c) or (f"\\{c}" if c in "&%$#_{}" else c) for c in " ".join(cell.split()))
    text = re.sub(r"(?<![\w$])-(?=\d)", "$-$", re.sub(r"(?<![\w$])\+(?=\d)", "$+$", text))
    return re.sub(r"\*\*(.+)\*\*", r"\\textbf{\1}", text)


def comma_separated(found: Sequence[Run]) -> str:
    """One line for each run, finished or not: what it sets, how it ended, its metrics as fractions, its costs."""
    lines = [{**run.overrides, "status": run.status, "error": run.error} | _flat(run.result) for run in found]
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
