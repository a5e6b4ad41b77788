"""What is said of the runs under a table: which read other data, and in what else they differ."""

import dataclasses
import json
import os

import pytest
from ml_collections import ConfigDict

from research.ablation.report import remarks, tables
from research.ablation.runs import Run
from tests.ablation import sweeps


@pytest.fixture
def finished(tmp_path):
    """Makes a finished run whose data had this fingerprint, ended at `time`."""

    def make(name: str, data: str, time: int, task: str = "trec", path: str = "here", score: float = 0.9, **environment) -> Run:
        config = ConfigDict({"task": task, "precision": "bfloat16", "data": {"source": "files", "path": path}})
        result = sweeps.result(score) | {"data": {"raw_fingerprint": data} if data else {}}
        result["environment"] |= environment
        folder = tmp_path / name
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(result))
        os.utime(folder / "result.json", (time, time))
        return Run(name, {"method": "full", "seed": int(name[1:])}, config, folder, result)

    return make


def kept(runs: list[Run]) -> list[Run]:
    return remarks.without_outdated(runs, remarks.newest(runs))


def test_results_on_data_that_changed_since_are_left_out_and_named(finished):
    runs = [finished("a0", "old", 1, score=0.1), finished("a1", "new", 3, score=0.9), finished("a2", "old", 2, score=0.1)]
    found = kept(runs)
    assert [run.status for run in found] == ["outdated", "finished", "outdated"]
    table = tables.markdown(found)
    assert "| full | 1 of 3 | 90.0 |" in table, "not the mean over two different data sets"
    assert "Left out: 2 runs on other data than the newest run of the same task, source and path (a0, a2); --rerun_outdated trains" in table
    only = tables.markdown([dataclasses.replace(found[0], overrides={"method": "lora"}), found[1]])
    assert "outdated: it read other data (old) than the newest run (new)" in only


def test_runs_on_the_same_data_all_stay_also_where_others_read_other_data(finished):
    runs = [
        finished("a0", "one", 1),
        finished("a1", "one", 2),
        finished("b0", "two", 3, task="sst2"),
        finished("c0", "three", 4, path="there"),
    ]
    assert kept(runs) == runs and "Left out" not in tables.markdown(runs)


def test_a_run_whose_data_are_not_recorded_is_not_taken_for_one_on_the_newest(finished):
    runs = [finished("a0", "", 1), finished("a1", "new", 2)]
    assert [run.status for run in kept(runs)] == ["outdated", "finished"] and "(not recorded)" in kept(runs)[0].error
    same = [finished("b0", "", 1), finished("b1", "", 2)]
    assert kept(same) == same


def test_what_else_differs_is_a_line(finished):
    runs = [finished(f"a{i}", "one", i, commit="a" * 40, devices=["TPU v4"] * 4) for i in range(3)]
    assert remarks.remarks(runs) == ""
    other = finished("b1", "one", 9, commit="b" * 40, jax="0.9.0", devices=["cpu"])
    other.config.precision = "float32"
    (line,) = remarks.remarks([*runs, other]).strip().splitlines()
    assert line == (
        "Beside their settings, the runs differ in: commit aaaaaaaaaaaaaaaaaa (3 runs), bbbbbbbbbbbbbbbbbb (1 run); "
        "jax 0.10.2 (3 runs), 0.9.0 (1 run); precision bfloat16 (3 runs), float32 (1 run); device TPU v4 (3 runs), cpu (1 run)."
    )
    swept = [dataclasses.replace(run, overrides={**run.overrides, "precision": run.config.precision}) for run in (*runs, other)]
    assert "precision" not in remarks.remarks(swept), "what the sweep sets is no surprise"
