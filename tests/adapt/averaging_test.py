"""Averages of the parameters: by a NumPy loop, over phases, and through whole runs that are cut short."""

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
from research.train import loop, optimizer
from research.train.checkpoint import Checkpoints
from research.train.step import init_state
from tests import runs

QUIET = Console(quiet=True)


def walk(hook, steps, total=20):
    """Parameters after each of `steps` updates, and what was kept then."""
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
def test_ema_is_the_recurrence_with_its_warm_up(decay):
    average, seen = np.ones((3, 2)), walk(Ema(decay), 20)
    for t, (now, kept) in enumerate(seen):
        d = min(decay, (1 + t) / (10 + t))
        average = d * average + (1 - d) * now
        np.testing.assert_allclose(kept, average, atol=1e-6)
    assert abs(seen[-1][1] - seen[-1][0]).max() > 1e-2


@pytest.mark.parametrize(("percent", "first"), [(25.0, 15), (100.0, 0), (1.0, 19)])
def test_swa_is_the_mean_of_the_last_part_and_the_parameters_themselves_before(percent, first):
    seen = walk(Swa(percent), 20)
    for t, (now, kept) in enumerate(seen):
        if t <= first:
            np.testing.assert_allclose(kept, now, atol=1e-6)
        else:
            np.testing.assert_allclose(kept, np.mean([w for w, _ in seen[first : t + 1]], axis=0), atol=1e-6)
    assert first == 19 or abs(seen[-1][1] - seen[-1][0]).max() > 1e-2


def test_a_phase_goes_on_with_the_averages_of_what_stays_open_and_begins_those_of_what_opens():
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
def test_a_run_that_is_cut_keeps_the_same_average_as_one_that_is_not(method, tmp_path, monkeypatch):
    c = runs.config(**options(method))
    whole = modes.run(c, tmp_path / "whole", QUIET)
    step = loop.PhaseRunner.step

    def cut(self, batch):
        if int(self.state.step) == 8:
            raise KeyboardInterrupt
        return step(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(loop.PhaseRunner, "step", cut)
        with pytest.raises(KeyboardInterrupt):
            modes.run(c, tmp_path / "cut", QUIET)
    assert Checkpoints(tmp_path / "cut" / "checkpoints", "latest").step == 5
    again = modes.run(c, tmp_path / "cut", QUIET)
    assert again["params"]["sha256"] == whole["params"]["sha256"]
    assert again["metrics"] == whole["metrics"] == json.loads((tmp_path / "whole" / "result.json").read_text())["metrics"]


@pytest.mark.devices
@pytest.mark.slow
def test_what_is_kept_over_phases_and_devices_is_the_average(tmp_path):
    c = runs.config(**options("gradual_unfreezing+ema", parallel="pmap", eval_steps=12))
    modes.run(c, tmp_path, QUIET)
    e = experiments.build(c)
    best, latest = (Checkpoints(tmp_path / "checkpoints", kind) for kind in ("best", "latest"))
    kept, phase = flatten(best.restore_trainable(e.model.trainable)), e.phases[-1]
    last = latest.restore(init_state(e.model.at(phase.plan, e.model.trainable).trainable, phase.tx))
    average, plain = flatten(average_in(last.opt_state)), flatten(last.trainable)
    for name, x in kept.items():
        np.testing.assert_array_equal(x, average[name])
    assert max(abs(np.asarray(x) - np.asarray(plain[name])).max() for name, x in kept.items()) > 1e-4
