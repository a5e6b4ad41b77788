"""Verdicts on published numbers, checked by hand, against SciPy and by simulation; stand-ins never count as a reproduction."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from research.ablation.report import reproduction, statistics
from research.ablation.report.published import PublishedCell, Table
from research.ablation.report.reproduction import judge, markdown
from research.ablation.run import Run
from research.config import fields

CONFIG = fields.base("imdb", fields.words("", model="bert-base", data="tfds"))
SIZES = {"train": 22_500, "dev": 2_500, "test": 25_000}
CELL = PublishedCell("all", 90.0, "Table 1, all", {"method": "full"}, config=CONFIG)
TABLE = Table("A. Author 2020", "A title.", "table 1", "accuracy", 0.5, (CELL,), examples={"imdb": {"train": 25_000, "test": 25_000}})


def runs(scores, sizes=SIZES, method: str = "full", **changes) -> list[Run]:
    """Return runs with test accuracies `scores` in percent for the seeds 0, 1, ..., and these changes of the config (`__` is a dot)."""
    made = []
    for seed, score in enumerate(scores):
        c = fields.override(copy.deepcopy(CONFIG), {name.replace("__", "."): value for name, value in changes.items()})
        c.seed = seed
        metrics = {split: {"accuracy": score / 100, "f1": score / 200} for split in ("dev", "test")}
        made.append(Run(f"r{seed}", {"method": method, "seed": seed}, c, Path("nowhere"), {"metrics": metrics, "data": {"sizes": sizes}}))
    return made


def outcome(scores, table: Table = TABLE, sizes=SIZES, changes: dict | None = None, **cell) -> tuple[str, str]:
    comparison = judge(table, dataclasses.replace(CELL, **cell), runs(scores, sizes, **(changes or {})))
    return comparison.name, comparison.reason


NEAR, WIDE = [90.0, 90.1, 89.9, 90.05, 89.95], [88.0, 92.0, 90.5, 89.0, 91.0]
EQUAL = "all runs have the same score, so there is no spread to compare with"


def test_the_verdict_follows_from_the_interval():
    assert outcome(NEAR) == ("within", "the interval is inside ± 0.5")
    assert outcome(np.array(NEAR) + 1) == ("above", "better") and outcome(np.array(NEAR) - 1) == ("below", "worse")
    assert outcome(WIDE)[0] == "underpowered"
    assert outcome(np.array(NEAR) + 0.25)[0] == "within", "a difference inside the margin counts as equal"
    assert outcome(np.array(NEAR) + 0.25, dataclasses.replace(TABLE, margin=0.1))[0] == "above"


def test_a_higher_error_rate_is_worse():
    table = dataclasses.replace(TABLE, metric="error")
    assert outcome(np.array(NEAR) + 1, table, value=10.0) == ("below", "better")
    assert outcome(np.array(NEAR) - 1, table, value=10.0) == ("above", "worse")
    comparison = judge(table, dataclasses.replace(CELL, value=10.0), runs([90.0, 91.0]))
    assert comparison.scores == pytest.approx((10.0, 9.0)) and comparison.difference.mean == pytest.approx(-0.5)
    f1 = judge(TABLE, dataclasses.replace(CELL, metric="f1", split="dev"), runs([90.0, 91.0]))
    assert f1.scores == pytest.approx((45.0, 45.5))


@pytest.mark.parametrize(("shift", "sd", "n"), [(0.0, 0.1, 25), (1.0, 0.8, 25), (1.0, 3.9, 3), (0.6, 0.2, 5)])
def test_with_a_published_standard_deviation_the_test_is_welchs(shift, sd, n):
    scores = np.array(NEAR) + shift
    expected = stats.ttest_ind_from_stats(scores.mean(), scores.std(ddof=1), 5, 90.0, sd, n, equal_var=False)
    name, _ = outcome(scores, sd=sd, n=n)
    comparison = judge(TABLE, dataclasses.replace(CELL, sd=sd, n=n), runs(scores))
    assert comparison.difference.p == pytest.approx(expected.pvalue)
    inside = max(abs(comparison.difference.low), abs(comparison.difference.high)) <= 0.5
    assert (name == "within") == inside and (name in ("above", "below")) == (expected.pvalue < 0.05 and not inside)


def test_too_few_runs_are_underpowered_and_the_reason_gives_the_number_needed():
    assert outcome([99.0]) == ("underpowered", "a single run gives no standard deviation; at least two are needed")
    others = judge(TABLE, CELL, runs([90.0] * 3, method="lora"))
    assert (others.name, others.reason) == ("not run", "no run has finished"), "these runs belong to another setting"
    failed = [dataclasses.replace(run, result=None, error="no memory\nat all") for run in runs([1.0])]
    assert (judge(TABLE, CELL, failed).name, judge(TABLE, CELL, failed).reason) == ("failed", "no memory")
    sd = np.std(WIDE, ddof=1)
    seeds = statistics.seeds_needed(0.5, sd, sd)
    assert f"takes {seeds} seeds of each; there are 5 here and one, if not stated, in the paper" in outcome(WIDE)[1]
    assert f"takes {statistics.seeds_needed(0.5, sd, 3.9)} seeds of each; there are 5 here and 25 in the" in outcome(WIDE, sd=3.9, n=25)[1]
    assert outcome([91.0, 91.0, 91.0]) == ("underpowered", EQUAL)
    assert outcome([0.0, 100.0])[1].startswith("a difference of 0.5 would need more than 10,000 seeds; there are 2 here")


def test_a_stand_in_is_never_a_reproduction():
    for changes, reason in (
        ({"model": "minilm"}, "model is minilm, in the paper bert-base"),
        ({"data__source": "demo"}, "data.source is demo, in the paper tfds"),
        ({"weights__source": "scratch"}, "weights.source is scratch, in the paper empty"),
        ({"data__train_examples": 100}, "data.train_examples is 100, in the paper 0"),
        ({"model": "minilm", "max_length": 64}, "model is minilm, in the paper bert-base"),
        ({"weights__sha256": "00"}, "weights.sha256 is 00, in the paper empty"),
    ):
        assert outcome(NEAR, changes=changes) == ("shape only", reason)
    assert outcome(NEAR, sizes=SIZES | {"train": 6_000}) == ("shape only", "8,500 train examples, in the paper 25,000")
    assert outcome(NEAR, sizes=SIZES | {"test": 5})[0] == "shape only" and outcome(NEAR, sizes={**SIZES})[0] == "within"
    assert judge(TABLE, CELL, runs(NEAR, model="minilm")).difference is None


def test_a_published_dev_split_does_not_count_as_train():
    table = dataclasses.replace(TABLE, examples={"imdb": {"train": 22_500, "dev": 2_500}})
    assert outcome(NEAR, table)[0] == "within"
    reason = outcome(NEAR, table, sizes={"train": 24_000, "dev": 1_000, "test": 9})[1]
    assert reason == "24,000 train examples, in the paper 22,500; 1,000 dev examples, in the paper 2,500"


def test_another_recipe_is_not_comparable_but_seeds_and_compute_options_may_differ():
    assert outcome(NEAR, changes={"max_length": 64}) == ("not comparable", "max_length is 64, in the paper 128")
    two = outcome(NEAR, changes={"max_length": 64, "total_steps": 5})[1]
    assert "max_length is 64" in two and "total_epochs is empty, in the paper 3.0" in two and "total_steps is 5, in the paper empty" in two
    assert outcome(NEAR, known_deviation="it begins elsewhere") == ("not comparable", "it begins elsewhere")
    comparison = judge(TABLE, CELL, runs(NEAR, max_length=64))
    assert comparison.difference.mean == pytest.approx(0), "the numbers are still reported"
    other = {"data__source": "files", "data__path": "there", "data__seed": 3, "precision": "float32", "packing": "padded", "accumulate": 2}
    costs = {"parallel": "jit", "eval_batch_tokens": 9, "prefix_cache_gb": 0.0, "remat": True, "log_steps": 3, "checkpoint_epochs": 2.0}
    assert outcome(NEAR, changes=other | costs)[0] == "within"
    one = [*runs(NEAR[:4]), *runs(NEAR, max_length=64)[4:]]
    assert judge(TABLE, CELL, one).name == "not comparable", "a single deviating run is enough"


def test_a_blocked_cell_is_waiting_even_if_there_are_runs():
    assert outcome(NEAR, blocked_by=("a task", "a model")) == ("waiting", "for a task; a model")
    assert outcome(NEAR, dataclasses.replace(TABLE, blocked_by=("a method",))) == ("waiting", "for a method")


def share(names, *wanted: str) -> float:
    return float(np.mean([name in wanted for name in names]))


def test_verdicts_have_their_nominal_error_rates_in_a_simulation(monkeypatch):
    """Check that runs of the paper's distribution are above or below in 5% of cases, and runs one margin away within in 2.5%."""
    monkeypatch.setattr(reproduction, "_power_note", lambda *_: "")  # slow
    rng, times = np.random.default_rng(0), 2_000

    def names(shift: float, margin: float, sd: float | None, n: int | None) -> list[str]:
        table, verdicts = dataclasses.replace(TABLE, margin=margin), []
        for _ in range(times):
            published = rng.normal(90, 0.5, n or 1)
            published_sd = float(published.std(ddof=1)) if sd else None
            difference = statistics.published_difference(rng.normal(90 + shift, 0.5, 8), published.mean(), published_sd, n)
            verdicts.append(reproduction._compare(table, CELL, [90.0, 91.0], difference)[0])
        return verdicts

    for sd, n in ((None, None), (0.5, 25)):
        equal = names(0, 1e-9, sd, n)
        assert 0.03 < share(equal, "above", "below") < 0.07 and share(equal, "within") == 0
        edge = names(0.8, 0.8, sd, n)
        assert share(edge, "within") < 0.04 and share(edge, "below") < 0.01
    assert share(names(0, 1.0, 0.5, 25), "within") > 0.9 and share(names(2.0, 0.5, 0.5, 25), "above") > 0.9
    assert share(names(0, 1.0, None, None), "within") < 0.5, "a single published run allows few conclusions"


def test_the_table_has_a_line_for_each_cell_and_notes():
    cells = (
        dataclasses.replace(CELL, sd=0.8, n=25),
        PublishedCell("two", 91.25, "Table 1, two", {"method": "lora"}, config=CONFIG),
        PublishedCell("three", 50.0, "Table 1, three", blocked_by=("a | task",), metric="matthews"),
    )
    table = dataclasses.replace(TABLE, cells=cells, notes=("A note.",))
    lines = markdown(table, [*runs(NEAR), *runs([91.0], method="lora")]).splitlines()
    assert lines[0] == "A. Author 2020: table 1 (accuracy). A title."
    assert lines[2] == "| setting | paper | measured | 95% interval | measured - paper | verdict | why | source |"
    low, high = (f"{end:.2f}" for end in (statistics.interval(NEAR).low, statistics.interval(NEAR).high))
    assert lines[4].startswith(f"| all | 90.00 ± 0.80, n 25 | 90.00 ± 0.08, n 5 | {low} to {high} | ")
    assert lines[4].endswith("| within | the interval is inside ± 0.5 | Table 1, all |")
    assert lines[5].startswith("| two | 91.25 | 91.00, n 1 |  |  | underpowered | a single run")
    assert lines[6] == "| three (matthews) | 50.00 |  |  |  | waiting | for a / task | Table 1, three |"
    assert "- A note." in lines and any("± 0.5 points" in line for line in lines)


def test_intervals_are_cut_at_the_ends_of_the_scale_and_missing_intervals_are_named():
    row = lambda scores: markdown(TABLE, runs(scores)).splitlines()[4]  # noqa: E731
    assert "to 100.0 |" in row([99.0, 100.0, 97.0])
    assert f"| 91.0 ± 0.0, n 3 | n/a: no spread | +1.0 (n/a: no spread) | underpowered | {EQUAL} |" in row([91.0] * 3)
    failed = [dataclasses.replace(run, result=None, error="no memory") for run in runs([1.0])]
    assert "| failed | no memory |" in markdown(TABLE, failed)
