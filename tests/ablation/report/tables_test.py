"""The tables: differences with their tests, and the cells of unfinished runs."""

import csv
import io
import re
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import stats

from research.ablation.report import remarks, statistics, tables
from research.ablation.run import Run
from research.errors import InputError
from tests.ablation import sweeps


def finished(**scores: list[float]) -> list:
    """Return runs of the named methods, with test accuracies in percent for the seeds 0, 1, ..."""
    return [run(name, seed, sweeps.result(score / 100)) for name, of in scores.items() for seed, score in enumerate(of)]


def run(method: str, seed: int, result: dict | None = None, error: str = "", folder: Path = Path("nowhere")) -> Run:
    return Run(f"{method}{seed}", {"method": method, "seed": seed}, ConfigDict(), folder, result, error)


def predicted(folder: Path, **right: np.ndarray) -> list[Run]:
    """Return runs of the named methods with predictions, which are correct where the arrays [seeds, examples] are true."""
    cells = [(name, seed, row, folder / f"{name}{seed}") for name, rows in right.items() for seed, row in enumerate(rows)]
    return [run(name, seed, sweeps.result(sweeps.write_predictions(where, row)), folder=where) for name, seed, row, where in cells]


def cells(runs) -> dict[str, dict[str, str]]:
    """Return method -> column -> cell."""
    header, *lines = tables.rows(runs)
    return {line[0]: dict(zip(header, line, strict=True)) for line in lines}


SURE = {"full": [90, 91, 92, 90.5], "lora": [95.1, 95.9, 97, 95.6], "probe": [80, 81.3, 82.1, 80.2]}


def test_a_difference_is_paired_by_seed_and_corrected():
    table = cells(finished(**SURE))
    assert table["full"]["test"] == "90.9 ± 0.9" and table["full"]["to the first"] == table["full"]["p"] == ""
    assert table["full"]["95% interval"] == "89.5 to 92.2"
    tests = [statistics.paired_difference(SURE[name], SURE["full"]) for name in ("lora", "probe")]
    for name, test, p in zip(("lora", "probe"), tests, statistics.holm([test.p for test in tests]), strict=True):
        assert table[name]["to the first"] == f"{test.mean:+.1f} ({test.low:+.1f} to {test.high:+.1f})"
        assert table[name]["p"] == ("< 0.001" if p < 0.001 else f"{p:.3f}")


def test_settings_with_different_seeds_are_compared_by_welchs_test():
    runs = finished(**SURE)
    del runs[5]
    table = cells(runs)
    test = statistics.unpaired_difference([95.1, 97, 95.6], SURE["full"])
    assert table["lora"]["to the first"] == f"{test.mean:+.1f} ({test.low:+.1f} to {test.high:+.1f}) w"
    assert not table["probe"]["to the first"].endswith("w")


def test_the_best_setting_is_bold_only_if_it_is_significantly_better():
    bold = {name: "**" in line["test"] for name, line in cells(finished(**SURE)).items()}
    assert bold == {"full": False, "lora": True, "probe": False}
    near = {**SURE, "dora": [95.3, 95.6, 97.1, 95.5]}
    assert not any("**" in line["test"] for line in cells(finished(**near)).values()), "lora and dora do not differ significantly"
    same = {"full": [90, 91], "lora": [95, 96]}
    assert cells(finished(**same))["lora"]["p"] == "n/a: no spread", "not 1.000: p is unknown without spread"
    assert cells(finished(**same))["lora"]["to the first"] == "+5.0 (n/a: no spread)" and "n/a" not in tables.rows(finished(**SURE))[2]
    mixed = cells(finished(**same, probe=[80, 83]))
    assert mixed["lora"]["p"] == "n/a: no spread" and mixed["probe"]["p"] == f"{statistics.paired_difference([80, 83], [90, 91]).p:.3f}"
    assert cells(finished(full=[50, 50, 50]))["full"]["95% interval"] == "n/a: no spread"
    assert "**" not in tables.markdown(finished(**same)) and "**" in tables.markdown(finished(**SURE))


def test_a_single_seed_has_no_interval_and_no_test():
    line = tables.markdown(finished(full=[50])).splitlines()[2]
    assert line == "| full | 1 | 50.0 |  |  |  |  | 50.0 | 10 | 1 | 2.0 | 1.00 |"
    table = cells(finished(full=[50], lora=[99], probe=[10, 11, 12]))
    assert not any("**" in line["test"] or line["p"] for line in table.values())


def test_the_difference_over_examples_has_a_bootstrap_interval(tmp_path):
    rng = np.random.default_rng(0)
    full, lora = (rng.random((3, 400)) < share for share in (0.8, 0.9))
    runs = predicted(tmp_path, full=full, lora=lora, same=full)
    table = cells(runs)
    differences = 100 * (lora.mean(0) - full.mean(0))
    low, high = stats.bootstrap((differences,), np.mean, rng=rng).confidence_interval
    mean, *ends = map(float, re.findall(r"[-+][\d.]+", table["lora"]["over examples"]))
    assert (mean, *ends) == pytest.approx((differences.mean(), low, high), abs=0.25)
    assert table["full"]["over examples"] == "" and table["same"]["over examples"] == "+0.0 (n/a: no spread)"
    assert tables.markdown(runs).count(table["lora"]["over examples"]) == 1
    assert table["lora"]["over examples"].replace("+", "$+$") in tables.latex(runs)


def test_single_seeds_have_mcnemars_test_over_examples_and_no_test_over_seeds(tmp_path):
    first = np.ones((1, 40), bool)
    better, equal = first.copy(), first.copy()
    first[0, :12], better[0, 5], equal[0, 12:24] = False, False, False  # 12 wrong; 1 of these wrong; 12 other examples wrong
    table = cells(predicted(tmp_path, full=first, lora=better, probe=equal))
    p = 2 * stats.binomtest(11, 11).pvalue  # 11 examples that only one gets right; Holm's correction over two tests
    assert p < 0.003 and table["lora"]["over examples"] == f"+27.5 (p = {p:.3f}, m)"
    assert table["probe"]["over examples"] == "+0.0 (p = 1.000, m)"
    assert not any(line["to the first"] or line["p"] or "**" in line["test"] for line in table.values())


def test_without_predictions_on_the_same_examples_the_column_is_blank(tmp_path):
    right = np.random.default_rng(0).random((2, 60)) < 0.8
    assert cells(predicted(tmp_path, full=right, lora=right))["lora"]["over examples"]
    few = predicted(tmp_path / "few", full=right[:, :49], lora=right[:, :49])
    others = predicted(tmp_path / "others", full=right, lora=right)
    sweeps.write_predictions(others[2].folder, right[0], labels=("yes", "no"))
    lost = predicted(tmp_path / "lost", full=right, lora=right)
    (lost[0].folder / "predictions" / "test.jsonl").unlink()
    for runs in (few, others, lost, finished(**SURE)):
        assert cells(runs)["lora"]["over examples"] == "" != cells(runs)["lora"]["to the first"]
    broken = predicted(tmp_path / "broken", full=right, lora=right)
    for torn in ('{"id": "test-0", "lab', '{"id": "test-0", "prediction": "yes"}', "7"):
        (broken[3].folder / "predictions" / "test.jsonl").write_text(torn)
        with pytest.raises(InputError, match=r"lora1/predictions/test.jsonl: not JSON lines with id, label and prediction; remove"):
            tables.rows(broken)


def test_changed_predictions_are_read_again(tmp_path):
    right = np.ones((2, 60), bool)
    runs = predicted(tmp_path, full=right, lora=right)
    assert cells(runs)["lora"]["over examples"] == "+0.0 (n/a: no spread)"
    for one in runs[2:]:
        sweeps.write_predictions(one.folder, ~right[0])
    assert cells(runs)["lora"]["over examples"] == "-100.0 (n/a: no spread)"


def test_tables_of_a_hundred_runs_take_seconds(tmp_path):
    runs = sweeps.made_up(tmp_path, steps=20, examples=1_000)
    begin = time.process_time()
    for write in (tables.markdown, tables.latex, tables.comma_separated):
        write(runs)
    assert len(runs) == 100 and time.process_time() - begin < 5


def test_unfinished_settings_show_their_status_in_every_table(tmp_path):
    runs = [run("top_k", 0, error="top_layers=9: too many"), run("full", 0)]
    started = run("probe", 0, folder=tmp_path)
    (tmp_path / "config.json").touch()
    table = cells([*runs, started, *finished(lora=[50, 51])])
    assert table["probe"]["test"] == "unfinished"
    assert (
        table["top_k"]["test"] == "failed: top_layers=9: too many" and table["full"]["test"] == "not run" and table["full"]["n"] == "0 of 1"
    )
    assert table["lora"]["to the first"] == "" == table["lora"]["relative to the first"]
    lines = list(csv.DictReader(io.StringIO(tables.comma_separated([*runs, *finished(lora=[50, 51])]))))
    assert [line["status"] for line in lines] == ["failed", "not run", "finished", "finished"]
    assert lines[0]["error"] == "top_layers=9: too many" and lines[0]["test.accuracy"] == ""
    assert (lines[3]["seed"], float(lines[3]["test.accuracy"]), lines[3]["train_s"]) == ("1", 0.51, "1.0")


def test_latex_has_every_cell_and_escapes_special_characters():
    runs = [*finished(**SURE), run("a_b&c", 0, error="50% of #1 | ~x")]
    tex = tables.latex(runs)
    body = [line for line in tex.splitlines() if not line.startswith("%")]
    assert r"\textbf{95.9 $\pm$ 0.8}" in tex and r"a\_b\&c" in tex and r"50\% of \#1 $|$ \textasciitilde{}x" in tex
    assert {len(re.findall(r"(?<!\\)&", line)) for line in body if line.endswith(r"\\")} == {11}
    assert body[0] == r"\begin{tabular}{lrrrrrrrrrrr}" and [line for line in body if "rule" in line] == [
        r"\toprule",
        r"\midrule",
        r"\bottomrule",
    ]


@pytest.mark.parametrize(
    ("scores", "noted"),
    [(SURE, True), ({"full": [50], "lora": [51]}, False), ({"full": [1, 2]}, False), ({"a": [0, 99], "b": [99, 0]}, False)],
)
def test_the_note_gives_the_seeds_that_detect_one_point(scores, noted):
    assert ("needs" in tables.markdown(finished(**scores))) == noted and "Holm" in tables.markdown(finished(**scores))


def test_no_interval_is_wider_than_the_scale():
    table = cells(finished(full=[99, 100, 97], lora=[0, 3, 1], probe=[1, 100, 99]))
    assert table["full"]["95% interval"].endswith("to 100.0") and table["lora"]["95% interval"].startswith("0.0 to")
    assert table["probe"]["to the first"].endswith("(-100.0 to +100.0)") and "cut at the ends of the scale" in tables.NOTE.replace(
        "\n", " "
    )


def test_an_error_of_many_runs_is_one_line_under_the_table():
    runs = [run("full", seed, error="OSError: no space\nat all") for seed in range(108)] + [run("lora", 0, error="KeyError: 1")]
    lines = tables.markdown(runs).splitlines()
    assert [line for line in lines if " failed: " in line and not line.startswith("|")] == [
        f"108 runs failed: OSError: no space ({', '.join(f'full{seed}' for seed in range(10))} and 98 more)",
        "1 run failed: KeyError: 1 (lora0)",
    ]
    assert "failed" not in remarks.remarks(finished(**SURE))
