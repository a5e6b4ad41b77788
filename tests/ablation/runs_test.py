"""Runs of a sweep: ids, selection and tasks, and a worker that trains each run once, in a separate workdir."""

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


def do(specs, folder, *tasks) -> list[str]:
    """Run the tasks in a worker, by default each run alone, and return the worker's messages."""
    messages = []
    for task in tasks or [[run_id] for run_id in specs]:
        worker.do({run_id: specs[run_id] for run_id in task}, folder, messages.append)
    return messages


def test_finished_runs_are_skipped_failed_runs_are_marked_and_the_table_has_both(tmp_path):
    specs = sweep_runs.identify([*cells(), ({"method": "top_k", "top_layers": 9, "seed": 0}, runs.config(method="top_k", top_layers=9))])
    assert len(specs) == 5
    some = sweep_runs.select(specs, "linear_probe|top_k")
    messages = do(some, tmp_path)
    assert messages[0].startswith("method=linear_probe seed=0: test accuracy 0.") and messages[0].endswith(" s")
    assert messages[2].startswith("method=top_k top_layers=9 seed=0: failed: top_layers=9: the encoder has 2 layers")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    assert len(before) == 2
    assert do(some, tmp_path) == messages[2:], "finished runs have no message"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")} == before
    assert [run.status for run in sweep_runs.results(specs, tmp_path)] == ["finished", "finished", "not run", "not run", "failed"]
    table = tables.markdown(sweep_runs.results(specs, tmp_path)).splitlines()
    assert table[0].startswith("| method | top_layers | n | test | 95% interval |")
    accuracies = [100 * json.loads(path.read_text())["metrics"]["test"]["accuracy"] for path in before]
    assert f"| linear_probe |  | 2 | {sum(accuracies) / 2:.1f} ± " in table[2]
    assert "| full |  | 0 of 2 | not run |" in table[3]
    assert "| top_k | 9 | 0 of 1 | failed: top_layers=9: the encoder has 2 layers" in table[4]


def test_an_error_of_any_type_leaves_the_other_runs_and_is_removed_when_the_run_succeeds(tmp_path, monkeypatch):
    specs, job = sweep_runs.identify(cells()), modes.run
    first, second, *others = specs

    def run(config, folder, console, build):
        if config.method == "linear_probe" and config.seed == 0:
            raise OSError(28, "No space left on device")
        return job(config, folder, console, build) if config.method == "linear_probe" else {"metrics": {}}["nothing"]

    with monkeypatch.context() as patch:
        patch.setattr(modes, "run", run)
        messages = do(specs, tmp_path)
    assert messages[0] == "method=linear_probe seed=0: failed: OSError: [Errno 28] No space left on device"
    assert messages[1].startswith("method=linear_probe seed=1: test accuracy")
    assert messages[2:] == [f"method=full seed={seed}: failed: KeyError: 'nothing'" for seed in (0, 1)]
    errors = {run.id: run.error for run in sweep_runs.results(specs, tmp_path)}
    assert errors == {first: "OSError: [Errno 28] No space left on device", second: "", **dict.fromkeys(others, "KeyError: 'nothing'")}
    assert do(specs, tmp_path, [first])[0].startswith("method=linear_probe seed=0: test accuracy")
    assert not (tmp_path / first / "error.txt").exists()


def test_an_interrupted_run_is_not_failed(tmp_path, monkeypatch):
    def run(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(modes, "run", run)
    with pytest.raises(KeyboardInterrupt):
        do(sweep_runs.identify(cells(seeds=1)), tmp_path)
    assert not list(tmp_path.glob("*/error.txt"))


def test_runs_of_one_task_are_trained_together_and_a_failed_run_leaves_the_others(tmp_path):
    specs = sweep_runs.identify([*cells(["linear_probe"], seeds=3), *cells(["linear_probe"], seeds=1, learning_rate=1e38)])
    messages = do(specs, tmp_path, list(specs))
    assert messages[0] == "4 runs as one program" and "1 of 3" not in " ".join(messages)
    results = sweep_runs.results(specs, tmp_path)
    assert [run.status for run in results] == ["finished"] * 3 + ["failed"] and "training diverged" in results[3].error
    assert all(len(run.result["environment"]["fleet"]) == 4 for run in results[:3])


def test_a_fleet_that_fails_is_trained_one_by_one(tmp_path, monkeypatch):
    specs = sweep_runs.identify(cells(["linear_probe"]))

    def run(*_):
        raise MemoryError("all of it")

    monkeypatch.setattr(fleet, "Fleet", run)
    messages = do(specs, tmp_path, list(specs))
    assert messages[0] == "2 runs as one program"
    assert messages[1] == "2 runs one after the other: together they failed: MemoryError: all of it"
    assert ["test accuracy" in line for line in messages] == [False, False, True, True]
    assert all(run.result["environment"]["fleet"] == [] for run in sweep_runs.results(specs, tmp_path))


@pytest.mark.parametrize("path", sorted((runs.ROOT / "configs" / "ablations").glob("[a-z]*.py")), ids=lambda path: path.stem)
def test_the_ready_ablations_are_valid(path):
    specs = sweep_runs.identify(sweep.configs(*sweep.load(f"{path}:smoke,seeds=2")))
    assert len(specs) >= 4 and "tiny" in (models := {config.model for _, config in specs.values()}) and models <= {"tiny", *fields.SMALL}


def test_a_repeated_run_is_an_error():
    with pytest.raises(InputError, match="one run twice: .*linear_probe.* are the same config"):
        sweep_runs.identify([*cells(), *cells()[:1]])
    assert len(sweep_runs.identify([*cells(), *cells(seeds=1, learning_rate=0.1)])) == 6


def test_tasks_are_fleets_or_single_runs():
    specs = sweep_runs.identify(cells(seeds=3))
    ids = list(specs)
    assert sweep_runs.tasks(specs, True, "") == [ids[:3], ids[3:]]
    assert sweep_runs.tasks(specs, False, "") == [[run_id] for run_id in ids]
    mixed = sweep_runs.identify([*cells(["full"]), *cells(["full"], batch_size=4), *cells(["full"], learning_rate=0.1)])
    assert [[mixed[run_id][1].batch_size for run_id in task] for task in sweep_runs.tasks(mixed, True, "")] == [[8] * 4, [4] * 2]


def test_array_jobs_share_the_tasks():
    specs = sweep_runs.identify(cells())
    for fleets in (True, False):
        shares = [sweep_runs.tasks(specs, fleets, f"{i}/3") for i in range(3)]
        assert sorted(sum(sum(shares, []), [])) == sorted(specs)
        assert [len(share) for share in shares] == ([1, 1, 0] if fleets else [2, 1, 1])
    for wrong in ("3/3", "1", "a/b", "0/0", "-1/3", "1/3/5"):
        with pytest.raises(InputError, match=f"--index={wrong} is not I/N"):
            sweep_runs.tasks(specs, True, wrong)


def test_only_matching_runs_are_selected():
    specs = sweep_runs.identify(cells())
    assert [overrides["method"] for overrides, _ in sweep_runs.select(specs, "method=full").values()] == ["full", "full"]
    assert sweep_runs.select(specs, "") == specs
    with pytest.raises(InputError, match="--only=lora matches no run; the runs are method=linear_probe seed=0; "):
        sweep_runs.select(specs, "lora")
    with pytest.raises(InputError, match=r"--only=\(full is not a regular expression"):
        sweep_runs.select(specs, "(full")


def test_a_workdir_belongs_to_one_sweep(tmp_path):
    sweep_runs.claim(tmp_path / "runs", "here/methods.py:seeds=3")
    sweep_runs.claim(tmp_path / "runs", "there/methods.py")
    with pytest.raises(InputError, match="runs holds the runs of methods.py, not of freezing.py; give another --workdir"):
        sweep_runs.claim(tmp_path / "runs", "here/freezing.py")
