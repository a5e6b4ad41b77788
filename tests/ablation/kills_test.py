"""A sweep that is killed repeatedly ends with the same results as an undisturbed one: a small version of tests/benchmarks/kills.py."""

import json

import pytest

from tests.benchmarks import kills


@pytest.mark.slow
def test_a_killed_sweep_has_the_same_results_as_an_undisturbed_one(tmp_path):
    sweep, cells, expected, _ = kills.compare(tmp_path, runs=12, steps=24, kills=3, seed=0)
    assert len(sweep.kills) == 3 and "worker" in {way for _, way in sweep.kills} and len(expected) == 12
    assert cells == expected


@pytest.mark.parametrize("name", ["result.json", *kills.FILES])
def test_cells_with_any_difference_are_not_equal(name, tmp_path):
    sweep = kills.Study(tmp_path, 1, 1)
    assert sweep.cells() == {} and sweep.lines() == 0
    for file in kills.FILES:
        path = tmp_path / "abc" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    (tmp_path / "abc" / "result.json").write_text(json.dumps({"params": {"sha256": "feed"}}))
    before = sweep.cells()
    assert before == sweep.cells() and list(before) == ["abc"] and sweep.lines() == 1
    (tmp_path / "abc" / name).write_text(json.dumps({"params": {"sha256": "food"}}))
    assert sweep.cells() != before
