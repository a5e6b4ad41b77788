"""A member of a fleet is the same run as alone: parameters, predictions, metrics, its own end; and the fleet says when it is of no use."""

import json

import jax
import numpy as np
import pytest
from rich.console import Console

from research.ablation import fleet, grouping
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import modes, results
from research.params.tree import flatten, merge
from research.tracking import writer
from research.train import loop
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
    """Parameters that runs kept, by folder name; `describe` is where a run has them in its hands."""
    kept, plain = {}, results.describe

    def describe(e, model, metrics, speed, best, sha256):
        params = {name: np.asarray(x) for name, x in flatten(merge(model.trainable, model.frozen)).items()}
        kept[best.folder.parents[1].parent.name, best.folder.parents[1].name] = params
        return plain(e, model, metrics, speed, best, sha256)

    monkeypatch.setattr(results, "describe", describe)
    return kept


def both(configs, folder, kept):
    """Name -> (result in a fleet, result alone, largest difference of parameters), after a check that nothing else differs."""
    together, out = fleet.run(configs, folder / "together", lambda text: None), {}
    for name, one in configs.items():
        alone = modes.run(one, folder / "alone" / name, QUIET)
        if isinstance(together[name], Exception):
            raise together[name]
        for split in ("dev", "test"):
            rows = [
                [json.loads(line) for line in (folder / where / name / "predictions" / f"{split}.jsonl").read_text().splitlines()]
                for where in ("together", "alone")
            ]
            assert [row["prediction"] for row in rows[0]] == [row["prediction"] for row in rows[1]]
            assert together[name]["metrics"][split] == pytest.approx(alone["metrics"][split], abs=1e-6)
        assert together[name]["selected_step"] == alone["selected_step"]
        a, b = (kept[where, name] for where in ("together", "alone"))
        out[name] = together[name], alone, max(float(np.abs(a[x] - b[x]).max()) for x in b)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("method, epsilon", [("lora", 1e-8), ("linear_probe", 1e-4)])
def test_seeds_and_scalars_are_each_its_own(method, epsilon, tmp_path, keep):
    # A probe is mapped over, which rounds otherwise, and Adam makes a whole step of a gradient that is all rounding, but for its epsilon.
    base = {"method": method, "weight_decay": 0.01, "dropout": 0.1, "label_smoothing": 0.1, "epsilon": epsilon}
    changes = [{}, {"seed": 1}, {"learning_rate": 1e-4}, {"weight_decay": 0.3}, {"dropout": 0.3}, {"label_smoothing": 0.3, "seed": 5}]
    configs = {f"m{k}": config(**base | change) for k, change in enumerate(changes)}
    assert grouping.groups(configs) == [list(configs)]
    ended = both(configs, tmp_path, keep)
    assert max(difference for *_, difference in ended.values()) < 1e-6
    shas = [together["params"]["sha256"] for together, *_ in ended.values()]
    assert len(set(shas)) == len(shas), "no two of them are the same run"
    for together, alone, _ in ended.values():
        assert together["environment"]["fleet"] == list(configs) and alone["environment"]["fleet"] == []
        assert together["config_hash"] == alone["config_hash"] and together["params"]["trainable"] == alone["params"]["trainable"]
        assert together["speed"]["step_flops"] < 1.3 * alone["speed"]["step_flops"]
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
    ended = fleet.run(configs, tmp_path / "a", lambda text: None)
    assert isinstance(ended["diverges"], InputError) and "diverged" in str(ended["diverges"])
    assert modes.run(configs["other"], tmp_path / "b", QUIET)["metrics"]["test"] == pytest.approx(
        ended["other"]["metrics"]["test"], abs=1e-6
    )
    configs = {f"s{seed}": config(method="linear_probe", seed=seed, **early) for seed in range(4)}
    both(configs, tmp_path / "early", keep)
    last = {name: writer.read_metrics(tmp_path / "early" / "together" / name)[-1]["step"] for name in configs}
    assert len(set(last.values())) > 1 and max(last.values()) < 8, "they stopped, and not all at the same step"


@pytest.mark.slow
def test_what_was_killed_goes_on_to_the_same_end(quickly, tmp_path, monkeypatch):
    configs = {f"r{k}": config(method="lora", seed=k // 2, learning_rate=1e-3 * (1 + k % 2)) for k in range(4)}
    whole = fleet.run(configs, tmp_path / "whole", lambda text: None)
    plain = loop.PhaseRunner.step
    for limit in (18, 10):  # in the fifth step, and then among those who went on from the third
        left = iter(range(limit))

        def step(self, batch, left=left):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return plain(self, batch)

        monkeypatch.setattr(loop.PhaseRunner, "step", step)
        with pytest.raises(KeyboardInterrupt):
            fleet.run(configs, tmp_path / "killed", lambda text: None)
    monkeypatch.setattr(loop.PhaseRunner, "step", plain)
    ended = fleet.run(configs, tmp_path / "killed", lambda text: None)
    assert {name: one["params"]["sha256"] for name, one in ended.items()} == {n: one["params"]["sha256"] for n, one in whole.items()}
    (tmp_path / "killed" / "r2" / "result.json").unlink()
    again = fleet.run(configs, tmp_path / "killed", lambda text: None)
    assert again.keys() == {"r2"} and again["r2"]["params"]["sha256"] == whole["r2"]["params"]["sha256"]


def test_groups_hold_only_what_shares_a_program():
    alike = {"a": {}, "b": {"seed": 1}, "c": {"learning_rate": 1e-5}, "d": {"dropout": 0.2}}
    other = {"e": {"dropout": 0.0}, "f": {"method": "full"}, "g": {"total_steps": 7}, "h": {"weight_decay": 0.0}, "i": {"data__seed": 1}}
    configs = {name: config(**{"method": "lora"} | change) for name, change in (alike | other).items()}
    assert grouping.groups(configs) == [list(alike), *([name] for name in other)]
    many = {str(seed): config(seed=seed) for seed in range(grouping.MOST + 3)}
    assert [len(group) for group in grouping.groups(many)] == [grouping.MOST, 3]


def test_it_says_why_it_is_of_no_use(tmp_path, monkeypatch):
    said, configs = [], {f"s{seed}": config(seed=seed) for seed in range(2)}
    monkeypatch.setattr(fleet, "LARGEST", 1000)
    assert fleet.run(configs, tmp_path, said.append) is None
    assert len(said) == 1 and said[0].startswith("2 runs one after the other: each trains 26,")
    monkeypatch.undo()
    monkeypatch.setattr(fleet, "MEMORY", 1000)
    assert fleet.run(configs, tmp_path, said.append) is None and "together they would keep about 0.0 GB" in said.pop()
    monkeypatch.undo()
    assert fleet.run({name: config(seed=k, parallel="pmap") for k, name in enumerate("ab")}, tmp_path, said.append) is None
    assert said[1] == "2 runs one after the other: they run on several devices"
    assert not list(tmp_path.iterdir())


def test_experiments_of_other_seeds_are_those_built_alone(quickly):
    build = experiments.experiments_of(config(method="lora"))
    for seed in (0, 4):
        one, other = build(config(method="lora", seed=seed)), experiments.build(config(method="lora", seed=seed))
        for name in ("trainable", "frozen"):
            jax.tree.map(np.testing.assert_array_equal, getattr(one.model, name), getattr(other.model, name))
        batches = [[next(e.train.stream()) for _ in range(2)][1] for e in (one, other)]
        jax.tree.map(np.testing.assert_array_equal, *batches)
        assert one.train.shapes == other.train.shapes and one.config.seed == seed
