"""Averages of the parameters: against a NumPy loop, over phases, and in interrupted runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from rich.console import Console

from research.adapt.averaging import Average, Ema, Swa, average_in
from research.experiment import build as experiments
from research.experiment import modes
from research.params.tree import flatten
from research.train import optimizer, trainers
from research.train.checkpoint import Checkpoints
from research.train.step import init_state
from tests import runs

QUIET = Console(quiet=True)


def run_updates(hook, steps, total=20):
    """Return (parameters, averaged parameters) after each of `steps` updates."""
    tx = hook.optimizer(optax.chain(optax.clip(1.0), optax.sgd(0.1, momentum=0.9)), None, total)
    params, rng, seen = {"a": jnp.ones((3, 2)), "b": jnp.zeros(4)}, np.random.default_rng(0), []
    state, update = tx.init(params), jax.jit(tx.update)
    for _ in range(steps):
        grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
        seen.append((np.asarray(params["a"]), np.asarray(hook.eval_params(params, state)["a"])))
    return seen


@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_ema_follows_the_recurrence_with_warm_up(decay):
    average, seen = np.ones((3, 2)), run_updates(Ema(decay), 20)
    for t, (params, averaged) in enumerate(seen):
        d = min(decay, (1 + t) / (10 + t))
        average = d * average + (1 - d) * params
        np.testing.assert_allclose(averaged, average, atol=1e-6)
    assert abs(seen[-1][1] - seen[-1][0]).max() > 1e-2


@pytest.mark.parametrize(("percent", "first"), [(25.0, 15), (100.0, 0), (1.0, 19)])
def test_swa_is_the_mean_over_the_last_steps_and_the_parameters_before_them(percent, first):
    seen = run_updates(Swa(percent), 20)
    for t, (params, averaged) in enumerate(seen):
        if t <= first:
            np.testing.assert_allclose(averaged, params, atol=1e-6)
        else:
            np.testing.assert_allclose(averaged, np.mean([w for w, _ in seen[first : t + 1]], axis=0), atol=1e-6)
    assert first == 19 or abs(seen[-1][1] - seen[-1][0]).max() > 1e-2


def test_a_phase_carries_averages_over_and_begins_those_of_newly_unfrozen_parameters():
    tx = Ema(0.9).optimizer(optax.sgd(0.1), None, 10)
    state = tx.init({"a": jnp.ones(2)})
    for _ in range(3):
        _, state = tx.update({"a": jnp.ones(2)}, state, {"a": jnp.ones(2)})
    after = optimizer.carried(tx.init({"a": jnp.full(2, 5.0), "b": jnp.full(3, 7.0)}), state)
    np.testing.assert_array_equal(average_in(after)["a"], average_in(state)["a"])
    np.testing.assert_array_equal(average_in(after)["b"], np.full(3, 7.0))
    assert int(next(x for x in after if isinstance(x, Average)).count) == 3


def options(method, **changes):
    return {"method": method, "total_steps": 12, "checkpoint_steps": 5, "learning_rate": 0.003, "swa_percent": 50.0, **changes}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["ema", "swa"])
def test_an_interrupted_run_saves_the_same_average_as_an_uninterrupted_one(method, tmp_path, monkeypatch):
    c = runs.config(**options(method))
    uninterrupted = modes.run(c, tmp_path / "uninterrupted", QUIET)
    step = trainers.SingleTrainer.step

    def interrupt(self, number, *rest):
        if number == 9:
            raise KeyboardInterrupt
        return step(self, number, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(trainers.SingleTrainer, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            modes.run(c, tmp_path / "interrupted", QUIET)
    assert Checkpoints(tmp_path / "interrupted" / "checkpoints", "latest").step == 5
    resumed = modes.run(c, tmp_path / "interrupted", QUIET)
    assert resumed["params"]["sha256"] == uninterrupted["params"]["sha256"]
    assert resumed["metrics"] == uninterrupted["metrics"] == json.loads((tmp_path / "uninterrupted" / "result.json").read_text())["metrics"]


@pytest.mark.devices
@pytest.mark.slow
def test_the_saved_parameters_are_the_average_over_phases_and_devices(tmp_path):
    c = runs.config(**options("gradual_unfreezing+ema", parallel="pmap", eval_steps=12))
    modes.run(c, tmp_path, QUIET)
    experiment = experiments.build(c)
    best, latest = (Checkpoints(tmp_path / "checkpoints", kind) for kind in ("best", "latest"))
    saved, phase = flatten(best.restore_trainable(experiment.model.trainable)), experiment.phases[-1]
    last = latest.restore(
        init_state(experiment.model.at(phase.plan, experiment.model.trainable).trainable, phase.optimizer(experiment.scalars(0)))
    )
    average, current = flatten(average_in(last.opt_state)), flatten(last.trainable)
    for name, x in saved.items():
        np.testing.assert_array_equal(x, average[name])
    assert max(abs(np.asarray(x) - np.asarray(current[name])).max() for name, x in saved.items()) > 1e-4
