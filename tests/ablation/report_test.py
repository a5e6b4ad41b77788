"""The tables: what they say of a difference, and what they must not say."""

import csv
import io
import re
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from research.ablation import report, statistics
from research.ablation.run import Run


def result(test: float) -> dict:
    """What the tables read of a run whose test accuracy is `test` percent."""
    return {
        "metrics": {"dev": {"accuracy": 0.5}, "test": {"accuracy": test / 100}},
        "selection": {"metric": "accuracy"},
        "params": {"trainable": 10},
        "speed": {"train_s": 1.0, "train_flops": 2e12},
    }


def found(**scores: list[float]) -> list:
    """Runs of as many methods, with test accuracies for the seeds 0, 1, ..."""
    return [run(name, seed, result(score)) for name, of in scores.items() for seed, score in enumerate(of)]


def run(method: str, seed: int, result: dict | None = None, error: str = "") -> Run:
    return Run(f"{method}{seed}", {"method": method, "seed": seed}, ConfigDict(), Path("nowhere"), result, error)


def cells(runs) -> dict[str, dict[str, str]]:
    """Method -> column -> cell."""
    header, *lines = report.rows(runs)
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}


SURE = {"full": [90, 91, 92, 90.5], "lora": [95.1, 95.9, 97, 95.6], "probe": [80, 81.3, 82.1, 80.2]}


def test_a_difference_is_paired_by_seed_and_corrected():
    table = cells(found(**SURE))
    assert table["full"]["test"] == "90.9 ± 0.9" and table["full"]["to the first"] == table["full"]["p"] == ""
    assert table["full"]["95% interval"] == "89.5 to 92.2"
    tests = [statistics.paired_difference(SURE[name], SURE["full"]) for name in ("lora", "probe")]
    for name, test, p in zip(("lora", "probe"), tests, statistics.holm([test.p for test in tests]), strict=True):
        assert table[name]["to the first"] == f"{test.mean:+.1f} ({test.low:+.1f} to {test.high:+.1f})"
        assert table[name]["p"] == ("< 0.001" if p < 0.001 else f"{p:.3f}")


def test_other_seeds_are_compared_by_welch():
    runs = found(**SURE)
    del runs[5]
    table = cells(runs)
    test = statistics.unpaired_difference([95.1, 97, 95.6], SURE["full"])
    assert table["lora"]["to the first"] == f"{test.mean:+.1f} ({test.low:+.1f} to {test.high:+.1f}) w"
    assert not table["probe"]["to the first"].endswith("w")


def test_the_best_is_bold_only_where_it_surely_is():
    bold = {name: "**" in line["test"] for name, line in cells(found(**SURE)).items()}
    assert bold == {"full": False, "lora": True, "probe": False}
    near = {**SURE, "dora": [95.3, 95.6, 97.1, 95.5]}
    assert not any("**" in line["test"] for line in cells(found(**near)).values()), "lora and dora are not told apart"
    same = {"full": [90, 91], "lora": [95, 96]}
    assert cells(found(**same))["lora"]["p"] == "1.000", "differences without spread"
    assert "**" not in report.markdown(found(**same)) and "**" in report.markdown(found(**SURE))


def test_one_seed_has_neither_interval_nor_test():
    line = report.markdown(found(full=[50])).splitlines()[2]
    assert line == "| full | 1 | 50.0 |  |  |  | 50.0 | 10 | 1 | 2.0 | 1.00 |"
    table = cells(found(full=[50], lora=[99], probe=[10, 11, 12]))
    assert not any("**" in line["test"] or line["p"] for line in table.values())


def test_what_is_not_finished_says_so_everywhere():
    runs = [run("top_k", 0, error="top_layers=9: too many"), run("full", 0)]
    table = cells([*runs, *found(lora=[50, 51])])
    assert table["top_k"]["test"] == "top_layers=9: too many" and table["full"]["test"] == "not run" and table["full"]["n"] == "0 of 1"
    assert table["lora"]["to the first"] == "" == table["lora"]["relative to the first"]
    lines = list(csv.DictReader(io.StringIO(report.comma_separated([*runs, *found(lora=[50, 51])]))))
    assert [line["status"] for line in lines] == ["failed", "not run", "finished", "finished"]
    assert lines[0]["error"] == "top_layers=9: too many" and lines[0]["test.accuracy"] == ""
    assert (lines[3]["seed"], float(lines[3]["test.accuracy"]), lines[3]["train_s"]) == ("1", 0.51, "1.0")


def test_latex_has_every_cell_and_no_bare_sign():
    runs = [*found(**SURE), run("a_b&c", 0, error="50% of #1 | ~x")]
    tex = report.latex(runs)
    body = [line for line in tex.splitlines() if not line.startswith("%")]
    assert r"\textbf{95.9 $\pm$ 0.8}" in tex and r"a\_b\&c" in tex and r"50\% of \#1 $|$ \textasciitilde{}x" in tex
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body if line.endswith(r"\\")} == {10}
    assert body[0] == r"\begin{tabular}{lrrrrrrrrrr}" and [line for line in body if "rule" in line] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]


@pytest.mark.parametrize(
    ("scores", "said"),
    [(SURE, True), ({"full": [50], "lora": [51]}, False), ({"full": [1, 2]}, False), ({"a": [0, 99], "b": [99, 0]}, False)],
)
def test_the_note_says_how_many_seeds_a_point_needs(scores, said):
    assert ("needs" in report.markdown(found(**scores))) == said and "Holm" in report.markdown(found(**scores))
