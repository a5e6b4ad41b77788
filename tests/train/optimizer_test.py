"""Schedules, groups, one clip; each optimizer beside NumPy written from its paper's equations."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.config import fields
from research.errors import InputError
from research.params import plan as plans
from research.params.plan import FROZEN, Treatment
from research.params.tree import flatten, split
from research.train import optimizer

NO_DECAY = {"bias": "bias"}
TABLE = {"head": ("head", Treatment()), "encoder": ("encoder", Treatment())}


def config(**changes):
    return fields.override(fields.base("imdb", fields.words("")), {"clip_norm": 0.0, "weight_decay": 0.0, **changes})


def params(*shape):
    rng = np.random.default_rng(0)
    leaf = lambda: rng.normal(size=shape or (3,)).astype(np.float32)  # noqa: E731
    return {"encoder": {"kernel": leaf(), "bias": leaf()}, "head": {"kernel": leaf(), "bias": leaf()}}


def run(c, grads, start=None, rules=None, rate=0.1):
    """Return the trainable leaves after each of `grads` (a list of trees like `start`), and the optimizer's last state."""
    start = params() if start is None else start
    plan = plans.make(start, rules or TABLE, NO_DECAY)
    now, _ = split(start, plan.trained)
    tx = optimizer.make(plan, c, {"learning_rate": rate, "weight_decay": c.weight_decay})
    state, path = tx.init(now), []

    @jax.jit
    def step(grad, state, now):
        updates, state = tx.update(grad, state, now)
        return optax.apply_updates(now, updates), state

    for grad in grads:
        now, state = step(split(grad, plan.trained)[0], state, now)
        path.append({name: np.asarray(leaf) for name, leaf in flatten(now).items()})
    return path, state


def made_up_grads(steps):
    rng = np.random.default_rng(1)
    return [jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params()) for _ in range(steps)]


def zeros(tree):
    return jax.tree.map(np.zeros_like, tree)


def adam_in_numpy(p, grads, *, rate, decay, decoupled, corrected=True, b1=0.9, b2=0.999, eps=1e-8):
    """Return Adam's result (Kingma & Ba 2015, algorithm 1) with decoupled decay (Loshchilov & Hutter 2019, algorithm 2) or as L2.

    Uncorrected moments are those of AdamWeightDecayOptimizer in BERT's optimization.py.
    """
    p = p.astype(np.float64)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(grads, 1):
        g = g if decoupled else g + decay * p
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        first, second = (1 - b1**t, 1 - b2**t) if corrected else (1.0, 1.0)
        step = (m / first) / (np.sqrt(v / second) + eps)
        p = p - rate * (step + (decay * p if decoupled else 0))
    return p


@pytest.mark.parametrize("corrected", [True, False])
@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_adam_equals_the_papers_equations_over_several_steps(name, corrected):
    start, grads = params(), made_up_grads(5)
    path, _ = run(config(optimizer=name, weight_decay=0.1, bias_correction=corrected), grads)
    by_name = [flatten(g) for g in grads]
    for leaf, value in flatten(start).items():
        decay = 0.0 if leaf.endswith("bias") else 0.1
        given = {"rate": 0.1, "decay": decay, "corrected": corrected}
        oracle = lambda kind, **other: adam_in_numpy(value, [g[leaf] for g in by_name], decoupled=kind, **(given | other))  # noqa: B023, E731
        np.testing.assert_allclose(path[-1][leaf], oracle(name == "adamw"), rtol=2e-5, atol=1e-6)
        assert np.abs(path[-1][leaf] - oracle(name == "adamw", corrected=not corrected)).max() > 1e-2
        if decay:  # the two kinds of decay are told apart by this test
            assert np.abs(path[-1][leaf] - oracle(name != "adamw")).max() > 1e-3


def test_without_correction_the_first_step_is_three_times_as_long_and_the_rate_is_the_same_later():
    start, grads = params(), [jax.tree.map(np.ones_like, params())] * 4000
    usual, uncorrected = ([path[i] for i in (0, 1, -2, -1)] for path, _ in (run(config(bias_correction=c), grads) for c in (True, False)))
    for name, leaf in flatten(start).items():
        np.testing.assert_allclose(usual[0][name] - leaf, -0.1, rtol=1e-4)
        np.testing.assert_allclose(uncorrected[0][name] - leaf, -0.1 * 0.1 / np.sqrt(0.001), rtol=1e-4)
        np.testing.assert_allclose(uncorrected[-1][name] - uncorrected[-2][name], -0.1, rtol=0.02)


@pytest.mark.parametrize("name", ["sgd", "adafactor"])
def test_an_optimizer_that_corrects_nothing_is_not_told_to_leave_it(name):
    with pytest.raises(InputError, match=f"bias_correction=False is of adam and adamw; optimizer={name} corrects nothing"):
        run(config(optimizer=name, bias_correction=False), made_up_grads(1))
    run(config(optimizer=name), made_up_grads(1))


def test_sgd_equals_heavy_ball_momentum_with_l2():
    start, grads = params(), made_up_grads(4)
    path, _ = run(config(optimizer="sgd", momentum=0.8, weight_decay=0.1), grads)
    for leaf, p in flatten(start).items():
        trace = 0.0
        for g in grads:
            trace = 0.8 * trace + flatten(g)[leaf] + (0.0 if leaf.endswith("bias") else 0.1) * p
            p = p - 0.1 * trace
        np.testing.assert_allclose(path[-1][leaf], p, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adafactor"])
def test_decay_shrinks_kernels_and_spares_biases_when_the_gradient_is_zero(name):
    start = params()
    (after,), _ = run(config(optimizer=name, weight_decay=0.5), [zeros(start)], rate=0.1)
    for leaf, value in flatten(start).items():
        np.testing.assert_allclose(after[leaf], value if leaf.endswith("bias") else value * 0.95, rtol=1e-6)
    (still,), _ = run(config(optimizer=name), [zeros(start)])
    np.testing.assert_array_equal(still["head/kernel"], start["head"]["kernel"])


def test_adafactor_descends_a_quadratic_and_keeps_factors_instead_of_moments():
    start = params(130, 140)
    path, state = run(config(optimizer="adafactor"), [start], start, rate=0.01)
    sizes = [leaf.size for leaf in jax.tree.leaves(state)]
    assert max(sizes) < 130 * 140 / 2
    _, adam = run(config(optimizer="adamw"), [start], start)
    assert max(leaf.size for leaf in jax.tree.leaves(adam)) == 130 * 140
    for _ in range(3):  # the gradient of half the square is the parameter
        now = {part: {name: path[-1][f"{part}/{name}"] for name in start[part]} for part in start}
        path += run(config(optimizer="adafactor"), [now], now, rate=0.01)[0]
    losses = [sum(float((leaf**2).sum()) for leaf in leaves.values()) for leaves in (flatten(start), *path)]
    assert losses == sorted(losses, reverse=True) and losses[-1] < 0.97 * losses[0]


def test_clipping_is_of_the_global_norm_and_once():
    grads = jax.tree.map(lambda x: np.full_like(x, 10.0), params())
    start = params()
    plan = plans.make(start, TABLE, NO_DECAY)
    assert len(plan.groups) == 2
    c = config(optimizer="sgd", momentum=0.0, clip_norm=1.0)
    (after,), _ = run(c, [grads], rate=1.0)
    moved = np.concatenate([after[name] - leaf for name, leaf in flatten(start).items()])
    np.testing.assert_allclose(np.linalg.norm(moved), 1.0, rtol=1e-5)
    np.testing.assert_allclose(moved, np.full(12, -1 / np.sqrt(12)), rtol=1e-5)
    (unclipped,), _ = run(config(optimizer="sgd", momentum=0.0), [grads], rate=1.0)
    np.testing.assert_allclose(unclipped["head/bias"] - start["head"]["bias"], -10.0, rtol=1e-5)


@pytest.mark.parametrize("size", (0.0, 0.1, 10.0, np.nan))
def test_clipping_is_that_of_optax_at_any_norm(size):
    gradients = {"a": np.full(4, size, np.float32), "b": np.full((2, 3), -size, np.float32)}
    actual, expected = (tx.update(gradients, tx.init(gradients))[0] for tx in (optimizer._clip(1.0), optax.clip_by_global_norm(1.0)))
    for name in gradients:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6, err_msg=name)
    looser = optimizer._clip(2.0).update(gradients, optax.EmptyState())[0]
    assert np.allclose(looser["a"], actual["a"], equal_nan=True) == (size != 10.0)


def test_a_clip_inside_each_group_would_not_be_global():
    labels = {"encoder": "a", "head": "b"}
    inside = optax.partition({name: optax.clip_by_global_norm(1.0) for name in "ab"}, labels)
    grads = {"encoder": jnp.full(3, 10.0), "head": jnp.full(3, 10.0)}
    updates, _ = inside.update(grads, inside.init(grads))
    np.testing.assert_allclose(optax.tree.norm(updates), np.sqrt(2), rtol=1e-5)


def test_a_small_gradient_is_not_clipped_and_a_frozen_one_does_not_count():
    start = params()
    grads = {
        "encoder": jax.tree.map(lambda x: np.full_like(x, 1e6), start["encoder"]),
        "head": jax.tree.map(lambda x: np.full_like(x, 0.1), start["head"]),
    }
    rules = {"encoder": ("encoder", FROZEN), "head": ("head", Treatment())}
    (after,), _ = run(config(optimizer="sgd", momentum=0.0, clip_norm=1.0), [grads], rules=rules, rate=1.0)
    np.testing.assert_allclose(after["head/kernel"] - start["head"]["kernel"], -0.1, rtol=1e-5)
    (counted,), _ = run(config(optimizer="sgd", momentum=0.0, clip_norm=1.0), [grads], rate=1.0)
    assert np.abs(counted["head/kernel"] - start["head"]["kernel"]).max() < 1e-6


@pytest.mark.parametrize("name", sorted(optimizer.OPTIMIZERS))
def test_what_is_frozen_is_neither_updated_nor_in_the_optimizers_state(name):
    start = params(5) | {"head": params(3)["head"]}
    rules = {"encoder": ("encoder", FROZEN), "head": ("head", Treatment())}
    frozen, state = run(config(optimizer=name, weight_decay=0.5), [start], start, rules)
    everything, full_state = run(config(optimizer=name, weight_decay=0.5), [start], start)
    assert set(frozen[-1]) == {"head/kernel", "head/bias"} and len(everything[-1]) == 4
    assert 5 not in {leaf.size for leaf in jax.tree.leaves(state)}
    assert 5 in {leaf.size for leaf in jax.tree.leaves(full_state)}


def test_masking_alone_would_let_a_frozen_gradient_through():
    masked = optax.masked(optax.sgd(1.0), {"trained": True, "frozen": False})
    tree = {"trained": jnp.ones(()), "frozen": jnp.ones(())}
    updates, _ = masked.update(tree, masked.init(tree))
    assert (float(updates["trained"]), float(updates["frozen"])) == (-1.0, 1.0)


@pytest.mark.parametrize("name", sorted(optimizer.OPTIMIZERS))
def test_a_multiplier_scales_the_update(name):
    start, (grad,) = params(), made_up_grads(1)
    rules = {"head": ("head", Treatment()), "encoder": ("encoder", Treatment(multiplier=0.25))}
    c = config(optimizer=name, weight_decay=0.1)
    (slow,), (fast,) = run(c, [grad], rules=rules)[0], run(c, [grad])[0]
    for leaf, value in flatten(start).items():
        factor = 0.25 if leaf.startswith("encoder") else 1.0
        np.testing.assert_allclose(slow[leaf] - value, factor * (fast[leaf] - value), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("multiplier", [0.0, -1.0, float("nan")])
def test_a_multiplier_that_is_not_positive_is_an_error(multiplier):
    rules = {"head": ("head", Treatment()), "still": ("encoder", Treatment(multiplier=multiplier))}
    with pytest.raises(InputError, match=r"rule 'still': .* on encoder/.*freeze it instead"):
        run(config(), made_up_grads(1), rules=rules)


def test_an_unknown_optimizer_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'adafactor'"):
        run(config(optimizer="adafacter"), made_up_grads(1))


def opening(c, rate, before=3, after=2):
    """Return the updates of every step, head alone for `before` steps and then all, for gradients of one; and the states at the border."""
    leaves = flatten(params())
    closed = {name: ("rule", Treatment() if name.startswith("head/") else FROZEN) for name in leaves}
    plan = plans.of_treatments(leaves, [closed, dict.fromkeys(leaves, ("rule", Treatment()))], NO_DECAY)
    state, updates, border = (), [], []
    for phase, steps in zip(plan.phases, (before, after), strict=True):
        now, _ = split(params(), phase.trained)
        at_step = lambda step, phase=phase: optimizer.make(phase, c, {"learning_rate": rate(step), "weight_decay": c.weight_decay})  # noqa: E731
        border.append(state)
        state = optimizer.carried(at_step(0).init(now), state)
        border.append(state)
        for _ in range(steps):
            change, state = at_step(len(updates)).update(jax.tree.map(np.ones_like, now), state, now)
            updates.append(flatten(change))
    return updates, border[2:]


def test_the_rate_is_a_function_of_the_runs_step_whenever_a_group_opened():
    rate = optax.linear_schedule(1.0, 0.0, 10)
    updates, _ = opening(config(optimizer="sgd", momentum=0.0), rate)
    assert [len(changes) for changes in updates] == [2, 2, 2, 4, 4]
    for step, changes in enumerate(updates):
        for update in changes.values():
            np.testing.assert_allclose(update, -(1.0 - step / 10), rtol=1e-6)


def test_what_stays_open_keeps_its_moments_and_what_opens_starts_at_its_first_step():
    updates, (before, after) = opening(config(optimizer="adam"), optax.constant_schedule(1.0))
    for changes in updates:  # Adam's step is 1 under a constant gradient, only if each group's own step count corrects its moments
        for update in changes.values():
            np.testing.assert_allclose(update, -1.0, rtol=1e-4)
    old = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(before)}
    new = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(after)}
    assert old.keys() < new.keys()
    assert all(np.array_equal(leaf, old[name]) for name, leaf in new.items() if name in old)
    assert all(not np.any(leaf) for name, leaf in new.items() if name not in old)
    momentum, _ = opening(config(optimizer="sgd", momentum=0.5), optax.constant_schedule(1.0))
    np.testing.assert_allclose(momentum[3]["head/kernel"], -1.875, rtol=1e-6)  # 1 + 1/2 + 1/4 + 1/8: goes on
    np.testing.assert_allclose(momentum[3]["encoder/kernel"], -1.0, rtol=1e-6)
