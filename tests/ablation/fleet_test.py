"""Compare members of a fleet with the same runs alone: parameters, predictions, metrics and last step; and when none is used."""

import json
import shutil

import jax
import numpy as np
import pytest
from rich.console import Console

from research.ablation import fleet, grouping
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import modes
from research.parallel import layouts
from research.params.tree import flatten, merge
from research.tracking import writer
from tests import runs

QUIET = Console(quiet=True)
# Phases; frozen parameters by the seed; a reader; places before the text; anchors; things found in the data; other gradients; averages.
UNLIKE = ("gradual_unfreezing", "vera", "scalar_mix", "prefix", "mixout", "child_tuning", "sam", "ema")


@pytest.fixture(scope="module")
def quickly(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, str(tmp_path_factory.mktemp("compiled"))):
        yield


def config(**changes):
    return runs.config("trec", **{"precision": "float32", "total_steps": 6, "eval_steps": 3, "checkpoint_steps": 3} | changes)


@pytest.fixture
def keep(monkeypatch):
    """Return a dict that fills with the parameters that runs select, by folder name: `modes.describe` is given them."""
    params_of_runs, original = {}, modes.describe

    def describe(e, model, metrics, speed, best, *rest):
        params = {name: np.asarray(x) for name, x in flatten(merge(model.trainable, model.frozen)).items()}
        params_of_runs[best.folder.parents[1].parent.name, best.folder.parents[1].name] = params
        return original(e, model, metrics, speed, best, *rest)

    monkeypatch.setattr(modes, "describe", describe)
    return params_of_runs


def together(configs, folder, say=lambda text: None):
    """Train runs as one program, also on a CPU, where that is slower for most methods. Return run id -> outcome."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet, "objection", lambda members, size: "")
        return {run_id: outcome for run_id, outcome, _ in fleet.run(configs, folder, say)}


def both(configs, folder, params_of_runs):
    """Return name -> (result in a fleet, result alone, largest difference of parameters). Check that nothing else differs."""
    ended, out = together(configs, folder / "together"), {}
    for name, one in configs.items():
        alone = modes.run(one, folder / "alone" / name, QUIET)
        if isinstance(ended[name], Exception):
            raise ended[name]
        for split in ("dev", "test"):
            rows = [
                [json.loads(line) for line in (folder / where / name / "predictions" / f"{split}.jsonl").read_text().splitlines()]
                for where in ("together", "alone")
            ]
            assert [row["prediction"] for row in rows[0]] == [row["prediction"] for row in rows[1]]
            assert ended[name]["metrics"][split] == pytest.approx(alone["metrics"][split], abs=1e-6)
        assert ended[name]["selected_step"] == alone["selected_step"]
        a, b = (params_of_runs[where, name] for where in ("together", "alone"))
        out[name] = ended[name], alone, max(float(np.abs(a[x] - b[x]).max()) for x in b)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("method, epsilon", [("lora", 1e-4), ("linear_probe", 1e-4)])
def test_seeds_and_scalars_are_each_its_own(method, epsilon, tmp_path, keep):
    # A vmapped step rounds otherwise, and Adam makes a whole step of a gradient that is all rounding, but for its epsilon.
    base = {"method": method, "weight_decay": 0.01, "dropout": 0.1, "label_smoothing": 0.1, "epsilon": epsilon}
    changes = [{}, {"seed": 1}, {"learning_rate": 1e-4}, {"weight_decay": 0.3}, {"dropout": 0.3}, {"label_smoothing": 0.3, "seed": 5}]
    configs = {f"m{k}": config(**base | change) for k, change in enumerate(changes)}
    assert grouping.groups(configs) == [list(configs)]
    ended = both(configs, tmp_path, keep)
    assert max(difference for *_, difference in ended.values()) < 1e-6
    shas = [member["params"]["sha256"] for member, *_ in ended.values()]
    assert len(set(shas)) == len(shas), "no two of them are the same run"
    for member, alone, _ in ended.values():
        assert member["environment"]["fleet"] == list(configs) and alone["environment"]["fleet"] == []
        assert member["config_hash"] == alone["config_hash"] and member["params"]["trainable"] == alone["params"]["trainable"]
        assert member["speed"]["step_flops"] < 1.3 * alone["speed"]["step_flops"]
    wrong = [keep["together", "m0"][name] - keep["alone", "m1"][name] for name in keep["alone", "m0"]]
    assert max(np.abs(x).max() for x in wrong) > 1e-4, "another seed's parameters would be noticed"


@pytest.mark.slow
@pytest.mark.parametrize("method", UNLIKE)
def test_what_a_method_brings_along_comes_along(method, quickly, tmp_path, keep):
    phases = {"phase_steps": 1} if method == "gradual_unfreezing" else {}
    ended = both({f"s{seed}": config(method=method, seed=seed, **phases) for seed in range(2)}, tmp_path, keep)
    assert max(difference for *_, difference in ended.values()) < 1e-5, "little optimised programs round apart"


@pytest.mark.slow
def test_one_that_diverges_or_stops_early_or_cannot_begin_is_alone_in_that(quickly, tmp_path, keep):
    early = {"patience_steps": 2, "eval_steps": 1, "total_steps": 8, "learning_rate": 0.01}
    configs = {"good": config(method="lora"), "diverges": config(method="lora", learning_rate=1e30), "other": config(method="lora", seed=3)}
    ended = together(configs, tmp_path / "a")
    assert isinstance(ended["diverges"], InputError) and "diverged" in str(ended["diverges"])
    assert modes.run(configs["other"], tmp_path / "b", QUIET)["metrics"]["test"] == pytest.approx(
        ended["other"]["metrics"]["test"], abs=1e-6
    )
    configs = {f"s{seed}": config(method="linear_probe", seed=seed, **early) for seed in range(4)}
    both(configs, tmp_path / "early", keep)
    last = {name: writer.read_metrics(tmp_path / "early" / "together" / name)[-1]["step"] for name in configs}
    assert len(set(last.values())) > 1 and max(last.values()) < 8, "they stopped, and not all at the same step"


@pytest.mark.slow
def test_a_fleet_that_was_killed_is_resumed_to_the_same_end(quickly, tmp_path, monkeypatch):
    configs = {f"r{k}": config(method="linear_probe", seed=k // 2, learning_rate=1e-3 * (1 + k % 2)) for k in range(4)}
    undisturbed, original = together(configs, tmp_path / "whole"), fleet.Fleet.step
    for stop in (5, 6):  # in the fifth step, and then after resuming from the third

        def step(self, number, *rest, stop=stop):
            if number == stop:
                raise KeyboardInterrupt
            return original(self, number, *rest)

        monkeypatch.setattr(fleet.Fleet, "step", step)
        with pytest.raises(KeyboardInterrupt):
            together(configs, tmp_path / "killed")
    monkeypatch.setattr(fleet.Fleet, "step", original)
    ended = together(configs, tmp_path / "killed")
    assert {name: one["params"]["sha256"] for name, one in ended.items()} == {n: one["params"]["sha256"] for n, one in undisturbed.items()}
    (tmp_path / "killed" / "r2" / "result.json").unlink()
    shutil.rmtree(tmp_path / "killed" / "r2" / "checkpoints")
    again = together(configs, tmp_path / "killed")
    assert again.keys() == {"r2"} and again["r2"]["params"]["sha256"] == undisturbed["r2"]["params"]["sha256"]


def test_groups_hold_only_what_shares_a_program():
    same = {"a": {}, "b": {"seed": 1}, "c": {"learning_rate": 1e-5}, "d": {"dropout": 0.2}, "h": {"weight_decay": 0.0}}
    other = {"e": {"dropout": 0.0}, "f": {"method": "full"}, "g": {"total_steps": 7}, "i": {"data__seed": 1}}
    configs = {name: config(**{"method": "lora"} | change) for name, change in (same | other).items()}
    assert grouping.groups(configs) == [list(same), *([name] for name in other)]
    many = {str(seed): config(seed=seed) for seed in range(grouping.MOST + 3)}
    assert [len(group) for group in grouping.groups(many)] == [grouping.MOST, 3]


def test_it_says_why_runs_are_better_trained_one_after_the_other(monkeypatch):
    def objection(**changes):
        build = experiments.experiments_of(config(**changes))
        return fleet.objection([build(config(**changes, seed=seed)) for seed in range(2)], 2)

    assert objection(method="linear_probe") == ""
    assert objection(method="lora").startswith("on a CPU a step of each takes the time of its own work")
    monkeypatch.setattr(fleet.jax, "default_backend", lambda: "gpu")
    assert objection(method="lora") == ""
    monkeypatch.setattr(fleet, "MEMORY", 1000)
    assert "together they would keep about 0.0 GB" in objection(method="lora")
    monkeypatch.setattr(fleet, "LARGEST", 1000)
    assert objection(method="lora").startswith("each trains 2,")
    assert objection(method="lora", parallel="pmap") == "they run on several devices"


SCALARS = {"learning_rate": 1e-2, "dropout": 0.3, "weight_decay": 0.0, "label_smoothing": 0.1}
HOOKED = ("rdrop", "smart", "freelb", "sam", "mixout", "child_tuning", "l2sp", "swa")


@pytest.mark.parametrize("method", ["lora", *(pytest.param(method, marks=pytest.mark.slow) for method in HOOKED)])
def test_runs_of_one_structure_share_their_programs_and_are_those_with_programs_of_their_own(method, quickly, tmp_path, monkeypatch):
    """Check that five runs, one after the other in one process, compile what one does, and keep no scalar of the first run."""
    changes = [{}, *({name: value} for name, value in SCALARS.items())]
    configs = {f"m{k}": config(method=method, max_length=31, **change) for k, change in enumerate(changes)}
    monkeypatch.setattr(layouts, "_programs", {})  # without those of earlier tests
    messages, ended = [], {}
    for run_id, outcome, _ in fleet.run(configs, tmp_path, messages.append):
        ended[run_id] = outcome
    assert messages == ["5 runs one after the other: on a CPU a step of each takes the time of its own work, and there is little to share"]
    counts = [one["speed"]["compilations"] for one in ended.values()]
    assert counts[0] > 1 and counts[1:] == [0] * 4
    assert len({one["params"]["sha256"] for one in ended.values()}) == 5
    for name, one in list(ended.items())[1:]:
        monkeypatch.setattr(layouts, "_programs", {})
        alone = modes.run(configs[name], tmp_path / "alone" / name, QUIET)
        assert alone["params"]["sha256"] == one["params"]["sha256"] and alone["config"] == one["config"]


def test_experiments_of_other_seeds_are_those_built_alone(quickly):
    build = experiments.experiments_of(config(method="lora"))
    for seed in (0, 4):
        one, other = build(config(method="lora", seed=seed)), experiments.build(config(method="lora", seed=seed))
        for name in ("trainable", "frozen"):
            jax.tree.map(np.testing.assert_array_equal, getattr(one.model, name), getattr(other.model, name))
        batches = [[next(e.train.stream()) for _ in range(2)][1] for e in (one, other)]
        jax.tree.map(np.testing.assert_array_equal, *batches)
        assert one.train.shapes == other.train.shapes and one.config.seed == seed
