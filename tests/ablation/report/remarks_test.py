"""Remarks under a table: runs on outdated data, and other differences between the runs."""

import dataclasses
import json
import os

import pytest
from ml_collections import ConfigDict

from research.ablation.report import remarks, tables
from research.ablation.run import Run
from tests.ablation import sweeps


@pytest.fixture
def finished(tmp_path):
    """Return a function that makes a finished run with a data fingerprint `data` that ended at `time`."""

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


def marked(runs: list[Run]) -> list[Run]:
    return remarks.without_outdated(runs, remarks.newest(runs))


def test_results_on_changed_data_are_left_out_and_named(finished):
    runs = [finished("a0", "old", 1, score=0.1), finished("a1", "new", 3, score=0.9), finished("a2", "old", 2, score=0.1)]
    current = marked(runs)
    assert [run.status for run in current] == ["outdated", "finished", "outdated"]
    table = tables.markdown(current)
    assert "| full | 1 of 3 | 90.0 |" in table, "not the mean over two different data sets"
    assert "Left out: 2 runs on other data than the newest run of the same task, source and path (a0, a2); --rerun_outdated trains" in table
    only = tables.markdown([dataclasses.replace(current[0], overrides={"method": "lora"}), current[1]])
    assert "outdated: it read other data (old) than the newest run (new)" in only


def test_data_are_compared_only_within_the_same_task_and_path(finished):
    runs = [
        finished("a0", "one", 1),
        finished("a1", "one", 2),
        finished("b0", "two", 3, task="sst2"),
        finished("c0", "three", 4, path="there"),
    ]
    assert marked(runs) == runs and "Left out" not in tables.markdown(runs)


def test_a_run_without_recorded_data_does_not_count_as_current(finished):
    runs = [finished("a0", "", 1), finished("a1", "new", 2)]
    assert [run.status for run in marked(runs)] == ["outdated", "finished"] and "(not recorded)" in marked(runs)[0].error
    same = [finished("b0", "", 1), finished("b1", "", 2)]
    assert marked(same) == same


def test_other_differences_are_one_line(finished):
    runs = [finished(f"a{i}", "one", i, commit="a" * 40, devices=["TPU v4"] * 4) for i in range(3)]
    assert remarks.remarks(runs) == ""
    other = finished("b1", "one", 9, commit="b" * 40, jax="0.9.0", devices=["cpu"])
    other.result["config"] = {"precision": "float32"}
    (line,) = remarks.remarks([*runs, other]).strip().splitlines()
    assert line == (
        "Apart from their settings, the runs differ in: commit aaaaaaaaaaaaaaaaaa (3 runs), bbbbbbbbbbbbbbbbbb (1 run); "
        "jax 0.10.2 (3 runs), 0.9.0 (1 run); precision bfloat16 (3 runs), float32 (1 run); device TPU v4 (3 runs), cpu (1 run)."
    )
    swept = [dataclasses.replace(run, overrides={**run.overrides, "precision": "float32"}) for run in (*runs, other)]
    assert "precision" not in remarks.remarks(swept), "fields that the sweep sets are not reported"
