"""Perturbation methods: each against its algorithm in NumPy on a linear model, with the same numbers for packed and padded batches."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.adapt import perturb, targets
from research.experiment import build as experiments
from research.parallel.layouts import Layout
from research.tasks.classification import Classification
from research.train import trainers
from research.train.step import init_state, split_microbatches, train_step
from tests import runs, toy

TASK = Classification("toy")

KEY, D, C = jax.random.key(0), 6, 3
LENGTHS = (3, 5, 2, 4)  # tokens of the four examples


def batch(rows):
    """Return a batch of the four examples. `rows` lists the example numbers of each row, which holds 10 tokens and up to 3 examples."""
    arrays = {name: np.zeros((len(rows), 10), np.int32) for name in ("segments", "positions")}
    arrays |= {name: np.zeros((len(rows), 3), np.int32) for name in ("example_starts", "examples", "labels")}
    arrays["weights"] = np.zeros((len(rows), 3), np.float32)
    for r, inside in enumerate(rows):
        at = 0
        for place, example in enumerate(inside):
            here = slice(at, at + LENGTHS[example])
            arrays["segments"][r, here], arrays["positions"][r, here] = place + 1, np.arange(LENGTHS[example])
            arrays["example_starts"][r, place], arrays["examples"][r, place], arrays["labels"][r, place] = at, example, example % C
            arrays["weights"][r, place] = 1.0
            at += LENGTHS[example]
    return jax.tree.map(jnp.asarray, arrays)


PACKED, PADDED = batch([[1, 0, 2], [3]]), batch([[0], [1], [2], [3]])


def by_example(x, batch):
    """Return example number -> the rows of x [B, L, ...] of its tokens."""
    x, b, result = np.asarray(x), jax.tree.map(np.asarray, batch), {}
    for row, place in zip(*np.nonzero(b["weights"]), strict=True):
        result[int(b["examples"][row, place])] = x[row, b["segments"][row] == place + 1]
    return result


@pytest.mark.parametrize("noise", [perturb.uniform, perturb.normal])
def test_the_noise_of_a_token_does_not_depend_on_packing(noise):
    packed, padded = (by_example(noise(KEY, "n", b, D), b) for b in (PACKED, PADDED))
    for example, x in packed.items():
        np.testing.assert_array_equal(x, padded[example])
    assert not np.asarray(noise(KEY, "n", PACKED, D))[np.asarray(PACKED["segments"]) == 0].any()
    assert np.abs(packed[0][:2] - packed[1][:2]).min() > 0
    for other in (noise(jax.random.key(1), "n", PACKED, D), noise(KEY, "m", PACKED, D)):
        assert np.abs(by_example(other, PACKED)[1] - packed[1]).min() > 0


def test_noise_has_the_moments_of_its_distribution():
    flat, bell = (np.asarray(noise(KEY, "n", PADDED, 20000))[1, :5] for noise in (perturb.uniform, perturb.normal))
    assert -1 < flat.min() < -0.999 and 0.999 < flat.max() < 1
    assert abs(flat.mean()) < 0.01 and flat.var() == pytest.approx(1 / 3, rel=0.02)
    assert abs(bell.mean()) < 0.02 and bell.var() == pytest.approx(1, rel=0.02) and (bell**4).mean() == pytest.approx(3, rel=0.05)
    assert abs(np.corrcoef(flat)[np.triu_indices(5, 1)]).max() < 0.03


def test_norms_are_over_examples():
    x = np.random.default_rng(0).normal(size=(2, 10, D)).astype(np.float32) * np.asarray(PACKED["segments"] > 0)[:, :, None]
    norms = by_example(perturb.norm(jnp.asarray(x), PACKED), PACKED)
    for example, rows in by_example(x, PACKED).items():
        np.testing.assert_allclose(norms[example], np.full((LENGTHS[example], 1), np.linalg.norm(rows)), rtol=1e-5)
    assert norms[0][0] != pytest.approx(np.linalg.norm(x[0]), rel=1e-3)


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


def test_the_divergence_is_the_sum_of_both_kl_divergences_over_the_real_examples():
    z, y = (np.random.default_rng(i).normal(size=(2, 3, C)) * (1 + 2 * i) for i in range(2))
    p, q, w = softmax(z), softmax(y), np.asarray(PACKED["weights"])
    divergence = float(TASK.divergence(jnp.asarray(z), jnp.asarray(y), PACKED))
    assert divergence == pytest.approx(((kl(p, q) + kl(q, p)) * w).sum(), rel=1e-5)
    assert divergence != pytest.approx((2 * kl(p, q) * w).sum(), rel=1e-2)
    assert float(TASK.divergence(jnp.asarray(z), jnp.asarray(z), PACKED)) == 0.0


def linear(rate=0.3):
    """Return a model and a table of states x. The logits are linear in the mean of x + noise over an example.

    The dropout mask is a function of the key and the example.
    """
    table = jnp.asarray(np.random.default_rng(5).normal(size=(4, 10, D)).astype(np.float32))

    def states(batch):
        examples = jnp.take_along_axis(batch["examples"], jnp.maximum(batch["segments"] - 1, 0), axis=1)
        return table[examples, batch["positions"]]

    def logits(trainable, frozen, batch, key=None, embedding_noise=None):
        x = states(batch) + (0.0 if embedding_noise is None else embedding_noise)
        members = batch["segments"][:, None, :] == jnp.arange(1, 4)[None, :, None]
        mean = jnp.einsum("bel,bld->bed", members.astype(jnp.float32), x) / jnp.maximum(members.sum(-1, keepdims=True), 1)
        if key is not None and rate:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(batch["examples"].ravel())
            keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, (D,)))(keys).reshape(mean.shape)
            mean = jnp.where(keep, mean / (1 - rate), 0.0)
        return jnp.einsum("bed,dc->bec", mean, trainable["w"])

    def loss(trainable, frozen, batch, key, embedding_noise=None):
        z = logits(trainable, frozen, batch, key, embedding_noise)
        return TASK.loss(z, batch)[0], TASK.stats(z, batch)

    return types.SimpleNamespace(logits=logits, loss=loss, task=TASK, embedding_noise_width=D, label_smoothing=0.1), table


TRAINABLE = {"w": jnp.asarray(np.random.default_rng(6).normal(size=(D, C)).astype(np.float32))}


def test_rdrop_adds_the_loss_of_a_second_pass_and_the_divergence_between_both():
    model, _ = linear()
    first = model.logits(TRAINABLE, {}, PACKED, KEY)
    second = model.logits(TRAINABLE, {}, PACKED, targets.keys_of(KEY, ["rdrop"])["rdrop"])
    p, q, w = *(softmax(np.asarray(z, np.float64)) for z in (first, second)), np.asarray(PACKED["weights"])
    wanted = np.eye(C)[np.asarray(PACKED["labels"])] * 0.9 + 0.1 / C
    nll, divergence = -((wanted * np.log(q)).sum(-1) * w).sum(), ((kl(p, q) + kl(q, p)) / 2 * w).sum()
    assert divergence > 0.1
    for alpha in (0.0, 1.0, 5.0):
        extra_loss = float(perturb.RDrop(alpha).extra_loss(model, TRAINABLE, {}, PACKED, KEY, first))
        assert extra_loss == pytest.approx(nll + alpha * divergence, rel=1e-5)
    undropped, _ = linear(rate=0.0)
    logits = undropped.logits(TRAINABLE, {}, PACKED, KEY)
    assert float(perturb.RDrop(9.0).extra_loss(undropped, TRAINABLE, {}, PACKED, KEY, logits)) == pytest.approx(
        float(TASK.loss(logits, PACKED, 0.1)[0]), rel=1e-6
    )


def smart_penalty(x, w, delta, epsilon, step_size, steps):
    """Return SMART's penalty for one example x [l, D] in NumPy, with an analytic gradient of the divergence."""
    p = softmax(x.mean(0) @ w)
    for _ in range(steps):
        q = softmax((x + delta).mean(0) @ w)
        g = q - p + q * (np.log(q / p) - kl(q, p))  # gradients of KL(p || q) and KL(q || p) with respect to the logits of q
        g = np.tile(w @ g / len(x), (len(x), 1))
        delta = np.clip(delta + step_size * g / abs(g).max(), -epsilon, epsilon)
    q = softmax((x + delta).mean(0) @ w)
    return kl(p, q) + kl(q, p)


@pytest.mark.parametrize("layout", [PACKED, PADDED])
@pytest.mark.parametrize(("epsilon", "steps"), [(0.2, 1), (0.5, 3)])
def test_smart_ascends_from_noise_to_the_largest_divergence(layout, epsilon, steps):
    model, table = linear(rate=0.0)
    method = perturb.Smart(weight=2.0, epsilon=epsilon, sigma=0.05, step_size=0.3, steps=steps)
    noise, w = by_example(0.05 * perturb.normal(KEY, "smart", layout, D), layout), np.asarray(TRAINABLE["w"], np.float64)
    expected = sum(smart_penalty(np.asarray(table[i, :n], np.float64), w, noise[i], epsilon, 0.3, steps) for i, n in enumerate(LENGTHS))
    extra_loss = float(method.extra_loss(model, TRAINABLE, {}, layout, KEY, model.logits(TRAINABLE, {}, layout, KEY)))
    assert extra_loss == pytest.approx(2 * expected, rel=1e-4)
    without_ascent = sum(smart_penalty(np.asarray(table[i, :n], np.float64), w, noise[i], epsilon, 0.0, 0) for i, n in enumerate(LENGTHS))
    assert extra_loss > 10 * without_ascent


def test_the_dropout_mask_does_not_count_as_an_effect_of_the_noise():
    model, _ = linear(rate=0.5)
    tiny = perturb.Smart(weight=1.0, epsilon=1e-3, sigma=1e-3, step_size=1e-3, steps=1)
    assert float(tiny.extra_loss(model, TRAINABLE, {}, PACKED, KEY, model.logits(TRAINABLE, {}, PACKED, KEY))) < 1e-4


def freelb_gradient(x, w, label, delta, o):
    """Return FreeLB's mean gradient of w and the last perturbation, for one example x [l, D] in NumPy."""
    total = np.zeros_like(w)
    for _ in range(o.steps):
        mean = (x + delta).mean(0)
        error = softmax(mean @ w) - np.eye(C)[label]
        total += np.outer(mean, error) / o.steps
        g = np.tile(w @ error / len(x), (len(x), 1))
        delta = delta + o.step_size * g / np.linalg.norm(g)
        if o.norm:
            delta = delta * min(1.0, o.norm / np.linalg.norm(delta))
    return total, delta


@pytest.mark.parametrize("layout", [PACKED, PADDED])
@pytest.mark.parametrize("bound", [0.0, 0.6])
def test_freelb_averages_the_gradients_of_all_ascent_steps(layout, bound):
    model, table = linear(rate=0.0)
    method = perturb.FreeLB(steps=4, step_size=0.3, init=0.5, norm=bound)
    noise, w, expected = by_example(perturb.uniform(KEY, "freelb", layout, D), layout), np.asarray(TRAINABLE["w"], np.float64), 0.0
    for i, n in enumerate(LENGTHS):
        begin, x = 0.5 * noise[i] / np.sqrt(n * D), np.asarray(table[i, :n], np.float64)
        total, last = freelb_gradient(x, w, i % C, begin, method)
        expected = expected + total
        assert bound == 0 or np.linalg.norm(last) == pytest.approx(bound, rel=1e-4)
    gradient = jax.grad(model.loss, has_aux=True)
    grads, stats = jax.jit(method.wrap_microbatch_grad(model, gradient))(TRAINABLE, {}, layout, KEY)
    np.testing.assert_allclose(grads["w"], expected, atol=1e-4)
    assert np.abs(np.asarray(gradient(TRAINABLE, {}, layout, KEY)[0]["w"]) - expected).max() > 1e-2
    assert float(stats["confusion"].sum()) == len(LENGTHS)


@pytest.mark.devices
@pytest.mark.slow
def test_sam_equals_that_of_optax_on_one_device_and_on_several():
    data, rho = list(toy.batches(4)), 0.3
    trainable, frozen, _ = toy.setup()
    key = jax.random.key_data(jax.random.key(0))
    gradient = jax.grad(toy.undropped, has_aux=True)
    oracle = optax.contrib.sam(optax.adam(0.01), optax.chain(optax.contrib.normalize(), optax.sgd(rho)), sync_period=2, opaque_mode=True)
    params, state = trainable, oracle.init(trainable)
    for b in data:
        mean = lambda p, _, b=b: jax.tree.map(lambda g: g / b["weights"].sum(), gradient(p, frozen, b, None)[0])  # noqa: E731
        updates, state = oracle.update(mean(params, 0), state, params, grad_fn=mean)
        params = optax.apply_updates(params, updates)

    def run(devices, parts, grad_transform):
        layout, tx = Layout(devices), optax.adam(0.01)
        step = layout.compile(functools.partial(train_step, gradient=gradient, grad_transform=grad_transform, tx=tx))
        state, rest, keys = (layout.replicate(x) for x in (init_state(trainable, tx), frozen, key))
        for b in data:
            state, _ = step(state, rest, split_microbatches(b, parts, layout), keys)
        return jax.tree.map(np.asarray, layout.first(state).trainable)

    for devices, parts in ((0, 1), (8, 2)):
        assert toy.distance(run(devices, parts, perturb.Sam(rho).wrap_grad), params) < 1e-5
    assert toy.distance(run(0, 1, lambda gradient: gradient), params) > 1e-3


def losses(method, steps=4, **changes):
    experiment = experiments.build(runs.config(method=method, total_steps=steps, precision="float32", learning_rate=0.003, **changes))
    layout, rows, flops = experiment.layout, [], None
    trees = init_state(experiment.model.trainable, experiment.tx), experiment.model.device_constants, experiment.dropout_key
    state, frozen, key = map(layout.replicate, trees)
    step, stream = trainers.train_program(experiment), experiment.train.stream()
    for _ in range(steps):
        state, stats = step(
            state,
            frozen,
            split_microbatches(next(stream), experiment.config.accumulate, layout),
            key,
            experiment.scalars(int(layout.first(state).step)),
        )
        stats = layout.first(stats)
        rows.append([float(stats["loss"] / stats["weight"]), float(stats["grad_norm"])])
        flops = flops or step.flops
    return np.array(rows), flops


@pytest.fixture(scope="module")
def full_tuning():
    return losses("full", batch_size=16)


@pytest.mark.devices
@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "changes", "passes"),
    [
        ("smart", {"smart__weight": 20.0}, 2.67),
        ("freelb", {"freelb__steps": 2, "freelb__step_size": 2.0, "freelb__norm": 0.0}, 2.0),
        ("rdrop+mixout", {}, 2.0),
    ],
)
def test_devices_packing_and_microbatches_do_not_change_a_method_and_its_cost_is_as_predicted(full_tuning, method, changes, passes):
    one, flops = losses(method, batch_size=16, **changes)
    other, _ = losses(method, batch_size=16, parallel="pmap", packing="padded", accumulate=2, **changes)
    assert np.abs(one - other)[:, 0].max() < 1e-5
    np.testing.assert_allclose(one[:, 1], other[:, 1], rtol=1e-3)
    assert np.abs(one - full_tuning[0]).max() > 1e-3
    assert flops == pytest.approx(passes * full_tuning[1], rel=0.15)
