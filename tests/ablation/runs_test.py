"""What a sweep has to do, and a worker at it: each run once, in its own place, and a table of what is there."""

import json

import pytest

from research.ablation import fleet, sweep, worker
from research.ablation import runs as sweep_runs
from research.ablation.report import tables
from research.config import fields
from research.errors import InputError
from research.experiment import modes
from tests import runs


@pytest.fixture(scope="module", autouse=True)
def quickly(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, str(tmp_path_factory.mktemp("compiled"))):
        yield


def cells(methods=("linear_probe", "full"), seeds=2, **changes):
    sweeps = sweep.product(sweep.over("method", methods), sweep.seeds(seeds))
    return [(overrides, runs.config(**overrides, **changes)) for overrides in sweeps]


def do(found, folder, *tasks) -> list[str]:
    """What the worker says."""
    said = []
    for task in tasks or [[run_id] for run_id in found]:
        worker.do({run_id: found[run_id] for run_id in task}, folder, said.append)
    return said


def test_finished_runs_are_skipped_broken_ones_are_marked_and_the_table_holds_both(tmp_path):
    found = sweep_runs.identify([*cells(), ({"method": "top_k", "top_layers": 9, "seed": 0}, runs.config(method="top_k", top_layers=9))])
    assert len(found) == 5
    some = sweep_runs.chosen(found, "linear_probe|top_k")
    said = do(some, tmp_path)
    assert said[0].startswith("method=linear_probe seed=0: test accuracy 0.") and said[0].endswith(" s")
    assert said[2].startswith("method=top_k top_layers=9 seed=0: failed: top_layers=9: the encoder has 2 layers")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert len(before) == 2
    assert do(some, tmp_path) == said[2:], "what is finished is nothing to speak of"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} == before
    assert [run.status for run in sweep_runs.results(found, tmp_path)] == ["finished", "finished", "not run", "not run", "failed"]
    table = tables.markdown(sweep_runs.results(found, tmp_path)).splitlines()
    assert table[0].startswith("| method | top_layers | n | test | 95% interval |")
    accuracies = [100 * json.loads(path.read_text())["metrics"]["test"]["accuracy"] for path in before]
    assert f"| linear_probe |  | 2 | {sum(accuracies) / 2:.1f} ± " in table[2]
    assert "| full |  | 0 of 2 | not run |" in table[3]
    assert "| top_k | 9 | 0 of 1 | failed: top_layers=9: the encoder has 2 layers" in table[4]


def test_an_error_of_any_kind_leaves_the_others_and_is_gone_when_the_run_succeeds(tmp_path, monkeypatch):
    found, job = sweep_runs.identify(cells()), modes.run
    first, second, *others = found

    def run(config, folder, console):
        if config.method == "linear_probe" and config.seed == 0:
            raise OSError(28, "No space left on device")
        return job(config, folder, console) if config.method == "linear_probe" else {"metrics": {}}["nothing"]

    with monkeypatch.context() as patch:
        patch.setattr(modes, "run", run)
        said = do(found, tmp_path)
    assert said[0] == "method=linear_probe seed=0: failed: OSError: [Errno 28] No space left on device"
    assert said[1].startswith("method=linear_probe seed=1: test accuracy")
    assert said[2:] == [f"method=full seed={seed}: failed: KeyError: 'nothing'" for seed in (0, 1)]
    errors = {run.id: run.error for run in sweep_runs.results(found, tmp_path)}
    assert errors == {first: "OSError: [Errno 28] No space left on device", second: "", **dict.fromkeys(others, "KeyError: 'nothing'")}
    assert do(found, tmp_path, [first])[0].startswith("method=linear_probe seed=0: test accuracy")
    assert not (tmp_path / first / "error.txt").exists()


def test_a_run_that_is_stopped_is_no_failed_run(tmp_path, monkeypatch):
    def run(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(modes, "run", run)
    with pytest.raises(KeyboardInterrupt):
        do(sweep_runs.identify(cells(seeds=1)), tmp_path)
    assert not list(tmp_path.glob("*/error.txt"))


def test_runs_of_one_task_are_trained_together_and_one_that_fails_leaves_the_others(tmp_path):
    found = sweep_runs.identify([*cells(["linear_probe"], seeds=3), *cells(["linear_probe"], seeds=1, learning_rate=1e38)])
    said = do(found, tmp_path, list(found))
    assert said[0] == "4 runs as one program" and "1 of 3" not in " ".join(said)
    results = sweep_runs.results(found, tmp_path)
    assert [run.status for run in results] == ["finished"] * 3 + ["failed"] and "training diverged" in results[3].error
    assert all(len(run.result["environment"]["fleet"]) == 4 for run in results[:3])


def test_what_cannot_be_together_is_done_one_by_one(tmp_path, monkeypatch):
    found = sweep_runs.identify(cells(["linear_probe"]))

    def run(*_):
        raise MemoryError("all of it")

    monkeypatch.setattr(fleet, "run", run)
    said = do(found, tmp_path, list(found))
    assert said[0] == "2 runs one after the other: together they failed: MemoryError: all of it"
    assert ["test accuracy" in line for line in said] == [False, True, True]
    assert all(run.result["environment"]["fleet"] == [] for run in sweep_runs.results(found, tmp_path))


@pytest.mark.parametrize("path", sorted((runs.ROOT / "configs" / "ablations").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_the_ready_ablations_hold_together(path):
    found = sweep_runs.identify(sweep.configs(*sweep.load(f"{path}:smoke,seeds=2")))
    assert len(found) >= 4 and "tiny" in (models := {config.model for _, config in found.values()}) and models <= {"tiny", *fields.SMALL}


def test_the_same_run_twice_is_refused():
    with pytest.raises(InputError, match="one run twice: .*linear_probe.* are the same config"):
        sweep_runs.identify([*cells(), *cells()[:1]])
    assert len(sweep_runs.identify([*cells(), *cells(seeds=1, learning_rate=0.1)])) == 6


def test_tasks_are_fleets_or_single_runs():
    found = sweep_runs.identify(cells(seeds=3))
    ids = list(found)
    assert sweep_runs.tasks(found, True, "") == [ids[:3], ids[3:]]
    assert sweep_runs.tasks(found, False, "") == [[run_id] for run_id in ids]
    apart = sweep_runs.identify([*cells(["full"]), *cells(["full"], batch_size=4), *cells(["full"], learning_rate=0.1)])
    assert [[apart[run_id][1].batch_size for run_id in task] for task in sweep_runs.tasks(apart, True, "")] == [[8] * 4, [4] * 2]


def test_an_array_job_takes_its_share():
    found = sweep_runs.identify(cells())
    for fleets in (True, False):
        shares = [sweep_runs.tasks(found, fleets, f"{i}/3") for i in range(3)]
        assert sorted(sum(sum(shares, []), [])) == sorted(found)
        assert [len(share) for share in shares] == ([1, 1, 0] if fleets else [2, 1, 1])
    for wrong in ("3/3", "1", "a/b", "0/0", "-1/3", "1/3/5"):
        with pytest.raises(InputError, match=f"--index={wrong} is not I/N"):
            sweep_runs.tasks(found, True, wrong)


def test_only_some_runs_are_chosen():
    found = sweep_runs.identify(cells())
    assert [overrides["method"] for overrides, _ in sweep_runs.chosen(found, "method=full").values()] == ["full", "full"]
    assert sweep_runs.chosen(found, "") == found
    with pytest.raises(InputError, match="--only=lora matches no run; they are method=linear_probe seed=0; "):
        sweep_runs.chosen(found, "lora")
    with pytest.raises(InputError, match=r"--only=\(full is no regular expression"):
        sweep_runs.chosen(found, "(full")


def test_a_workdir_is_one_sweeps(tmp_path):
    sweep_runs.own(tmp_path / "runs", "here/methods.py:seeds=3")
    sweep_runs.own(tmp_path / "runs", "there/methods.py")
    with pytest.raises(InputError, match="runs holds the runs of methods.py, not of freezing.py; give another --workdir"):
        sweep_runs.own(tmp_path / "runs", "here/freezing.py")
