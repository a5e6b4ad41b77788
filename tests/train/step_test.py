"""Test one update of a toy: the same numbers for any split of the batch, and no FLOPs for frozen parameters."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.parallel.layouts import Layout
from research.params.tree import flatten, merge
from research.train.step import eval_step, init_state, split_microbatches, train_step
from tests.toy import CLASSES, ROWS, STAGES, TASK, batches, distance, params, run, setup, undropped


@pytest.fixture(scope="module")
def single():
    return run()


@pytest.mark.parametrize(
    ("devices", "parts"), [(0, 2), (0, 4), *(pytest.param(*p, marks=pytest.mark.devices) for p in ((8, 1), (8, 2), (4, 1)))]
)
def test_parts_and_devices_do_not_change_the_result(single, devices, parts):
    state, stats = run(devices, parts)
    assert distance(state.trainable, single[0].trainable) < 1e-6
    assert int(state.step) == 5
    for one, other in zip(stats, single[1], strict=True):
        np.testing.assert_array_equal(one["confusion"], other["confusion"])
        assert one["weight"] == other["weight"]
        np.testing.assert_allclose([one["loss"], one["grad_norm"]], [other["loss"], other["grad_norm"]], rtol=1e-5)


def test_averaging_the_means_of_parts_would_change_the_result():
    (batch,), (trainable, frozen, _) = batches(1), setup()
    grad = jax.jit(lambda b: jax.grad(undropped, has_aux=True)(trainable, frozen, b, jax.random.key(0))[0])
    halves = [{name: x[rows] for name, x in batch.items()} for rows in (slice(0, 16), slice(16, 32))]
    counts = [half["weights"].sum() for half in halves]
    assert counts[0] < counts[1] / 1.5
    exact = jax.tree.map(lambda g: g / sum(counts), grad(batch))
    naive = jax.tree.map(lambda a, b: (a / counts[0] + b / counts[1]) / 2, *map(grad, halves))
    assert distance(exact, naive) > 1e-3
    after, _ = run(0, 2, loss=undropped, data=[batch], optimizer="sgd", rate=1.0, clip=0.0)
    moved = jax.tree.map(lambda a, b: a - b, params(), after.trainable)
    assert distance(moved, exact) < 1e-6 < distance(moved, naive)


def test_one_step_of_a_linear_probe_equals_numpy():
    (batch,) = batches(1)
    after, (stats,) = run(loss=undropped, data=[batch], method="linear_probe", optimizer="sgd", rate=0.5, clip=0.0)
    h, head, w = batch["x"][:, 0].astype(np.float64), params()["head"], batch["weights"][:, 0]
    for stage in STAGES:
        h = np.tanh(h @ params()["encoder"][stage]["kernel"] + params()["encoder"][stage]["bias"])
    p = np.exp(h @ head["kernel"] + head["bias"])
    p /= p.sum(1, keepdims=True)
    y = batch["labels"][:, 0]
    error = (p - np.eye(CLASSES)[y]) * w[:, None] / w.sum()
    grads = {"kernel": h.T @ error, "bias": error.sum(0)}
    for name, g in grads.items():
        np.testing.assert_allclose(after.trainable["head"][name], head[name] - 0.5 * g, atol=1e-6)
    assert stats["grad_norm"] == pytest.approx(np.sqrt(sum((g**2).sum() for g in grads.values())), rel=1e-5)
    assert stats["loss"] == pytest.approx(-(w * np.log(p[np.arange(ROWS), y])).sum(), rel=1e-5)
    assert stats["weight"] == w.sum() and stats["confusion"].sum() == w.sum()


def test_rows_without_an_example_do_not_count():
    data = list(batches())
    noisy = [b | {"x": np.where(b["weights"][..., None] > 0, b["x"], 9.0).astype(np.float32)} for b in data]
    assert distance(run(data=data), run(data=noisy)) == 0.0
    assert distance(run(data=data)[0], run(data=[b | {"weights": np.ones_like(b["weights"])} for b in data])[0]) > 1e-4


@pytest.mark.parametrize(("method", "expected"), [("full", 10), ("top_k", 6), ("linear_probe", 2)])
def test_what_is_frozen_is_not_in_the_state_and_what_trains_all_moves(method, expected):
    (state, _), before = run(method=method), flatten(params())
    after = flatten(state.trainable)
    assert len(after) == expected
    assert all(np.abs(leaf - before[name]).max() > 1e-4 for name, leaf in after.items())
    sizes = sum(leaf.size for leaf in after.values())
    assert 2 * sizes <= sum(np.size(leaf) for leaf in jax.tree.leaves(state.opt_state)) <= 2 * sizes + 10


def test_what_is_frozen_costs_no_backward_pass_even_with_the_gradients_norm_reported():
    def flops(step, method):
        trainable, frozen, tx = setup(method)
        program = Layout().compile(functools.partial(step, gradient=jax.grad(undropped, has_aux=True), tx=tx))
        program(
            init_state(trainable, tx), frozen, split_microbatches(next(batches(1)), 1, Layout()), jax.random.key_data(jax.random.key(0))
        )
        return program.flops

    def wasteful(state, frozen, batch, key, *, gradient, tx, axis=None):
        """Return a gradient function that differentiates all parameters, returns the head's gradient, and reports the norm of all."""
        one = jax.tree.map(lambda x: x[0], batch)
        grads = gradient(merge(state.trainable, frozen), {}, one, jax.random.wrap_key_data(key))[0]
        updates, _ = tx.update({"head": grads["head"]}, state.opt_state, state.trainable)
        return optax.apply_updates(state.trainable, updates), optax.tree.norm(grads)

    full = flops(train_step, "full")
    assert flops(train_step, "linear_probe") < 0.6 * full
    assert flops(train_step, "linear_probe") < flops(train_step, "top_k") < full
    assert flops(wasteful, "linear_probe") > 1.4 * flops(train_step, "linear_probe")


def test_one_seed_gives_the_same_bits_and_another_seed_drops_others(single):
    assert distance(run(), single) == 0.0
    assert distance(run(seed=1)[0].trainable, single[0].trainable) > 1e-4
    assert distance(run(seed=1, loss=undropped), run(seed=2, loss=undropped)) == 0.0


def test_each_step_drops_others():
    (batch,) = batches(1)
    _, stats = run(data=[batch] * 3, rate=1e-9)
    assert len({float(t["loss"]) for t in stats}) == 3
    _, still = run(data=[batch] * 3, rate=1e-9, loss=undropped)
    assert np.ptp([t["loss"] for t in still]) < 1e-4


@pytest.mark.parametrize("devices", [0, pytest.param(8, marks=pytest.mark.devices)])
def test_evaluation_gives_rows_in_order_and_exact_totals(devices):
    layout, (batch,) = Layout(devices), batches(1)
    logits_fn = lambda trainable, frozen, b: jnp.einsum("bef,fc->bec", b["x"], trainable["head"]["kernel"])  # noqa: E731
    step = functools.partial(eval_step, model=types.SimpleNamespace(logits=logits_fn, task=TASK))
    outputs, stats = layout.compile(step)(layout.replicate(params()), layout.replicate({}), layout.shard(batch))
    expected = batch["x"] @ params()["head"]["kernel"]
    np.testing.assert_allclose(layout.join(outputs["logits"]), expected, atol=1e-5)
    confusion = np.zeros((CLASSES, CLASSES))
    np.add.at(confusion, (batch["labels"].ravel(), expected.argmax(-1).ravel()), batch["weights"].ravel())
    np.testing.assert_array_equal(layout.first(stats)["confusion"], confusion)
