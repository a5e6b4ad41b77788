"""Runs of a sweep: each once, in its own place, and a table of what is there."""

import json

import pytest
from rich.console import Console

from configs import common
from research.ablation import report, runner, sweep
from research.errors import InputError
from tests import runs


def cells(**changes):
    sweeps = sweep.product(sweep.over("method", ["linear_probe", "full"]), sweep.seeds(2))
    return [(overrides, runs.config(**overrides, **changes)) for overrides in sweeps]


def test_finished_runs_are_skipped_broken_ones_are_marked_and_the_table_holds_both(tmp_path, capsys):
    found = runner.identify([*cells(), ({"method": "top_k", "top_layers": 9, "seed": 0}, runs.config(method="top_k", top_layers=9))])
    assert len(found) == 5
    some = runner.chosen(found, "linear_probe|top_k", "")
    console = Console(stderr=True)
    runner.run_all(some, tmp_path, console)
    shown = capsys.readouterr().err
    assert "[1/3] method=linear_probe seed=0: test accuracy" in shown and "failed: top_layers=9" in shown
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert len(before) == 2
    runner.run_all(some, tmp_path, console)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} == before
    table = report.markdown(runner.results(found, tmp_path)).splitlines()
    assert table[0].startswith("| method | top_layers | n | test | 95% interval |")
    accuracies = [100 * json.loads(path.read_text())["metrics"]["test"]["accuracy"] for path in before]
    assert f"| linear_probe |  | 2 | {sum(accuracies) / 2:.1f} ± " in table[2]
    assert "| full |  | 0 of 2 | not run |" in table[3]
    assert "| top_k | 9 | 0 of 1 | top_layers=9: the encoder has 2 layers" in table[4]


@pytest.mark.parametrize("path", sorted((runs.ROOT / "configs" / "ablations").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_the_ready_ablations_hold_together(path):
    found = runner.identify(sweep.configs(*sweep.load(f"{path}:smoke,seeds=2")))
    assert len(found) >= 4 and "tiny" in (models := {config.model for _, config in found.values()}) and models <= {"tiny", *common.SMALL}


def test_the_same_run_twice_is_refused():
    with pytest.raises(InputError, match="one run twice"):
        runner.identify([*cells(), *cells()[:1]])


def test_an_array_job_takes_its_share():
    found = runner.identify(cells())
    shares = [list(runner.chosen(found, "", f"{i}/3")) for i in range(3)]
    assert sorted(sum(shares, [])) == sorted(found) and [len(share) for share in shares] == [2, 1, 1]
    assert [cell[0]["method"] for cell in runner.chosen(found, "method=full", "").values()] == ["full", "full"]
    for wrong in ("3/3", "1", "a/b"):
        with pytest.raises(InputError, match=f"--index={wrong} is not I/N"):
            runner.chosen(found, "", wrong)
    with pytest.raises(InputError, match="--only=lora matches no run; they are method=linear_probe seed=0"):
        runner.chosen(found, "lora", "")


def test_an_error_of_any_kind_leaves_the_others(tmp_path, monkeypatch, capsys):
    found, job = runner.identify(cells()), runner.job.run

    def run(config, folder, console):
        if config.method == "linear_probe" and config.seed == 0:
            raise OSError(28, "No space left on device")
        return job(config, folder, console) if config.method == "linear_probe" else {"metrics": {}}["nothing"]

    monkeypatch.setattr(runner.job, "run", run)
    runner.run_all(found, tmp_path, Console(stderr=True, width=200))
    shown = capsys.readouterr().err
    assert "method=linear_probe seed=0: failed: OSError: [Errno 28] No space left on device" in shown
    assert "method=linear_probe seed=1: test accuracy" in shown and shown.count("failed: KeyError: 'nothing'") == 2


def test_a_process_that_ends_early_is_an_error():
    with pytest.raises(InputError, match="--jobs=2: the process for 0/2 and 1/2 of the runs ended early"):
        runner.side_by_side(2, ["--config=nothing.py"])
