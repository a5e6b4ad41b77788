"""Programs that differ in numbers become one; programs that differ in more are told apart."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from research.ablation import alike

X, W = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3), np.arange(6, dtype=np.float32).reshape(3, 2) / 5
SHAPES = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (X, W)]


def step(rate, decay, keep=0.5, activation=jax.nn.gelu):
    """A step with its numbers in a schedule, in the optimizer, in a comparison, and inside functions that are jitted themselves."""
    tx = optax.chain(
        optax.scale_by_adam(), optax.add_decayed_weights(decay), optax.scale_by_learning_rate(optax.linear_schedule(rate, 0, 7))
    )

    def run(x, w):
        def loss(w):
            return jax.nn.logsumexp(jnp.where(jnp.cos(9 * x[:, :2]) < keep, activation(x @ w) / keep, 0.0))

        return [w + tx.update(jax.grad(loss)(w), tx.init(w), w)[0]]

    return run


def test_one_program_with_numbers_is_each_of_the_programs():
    settings = [(1e-3, 0.1, 0.5), (5e-3, 0.1, 0.9), (1e-3, 0.3, 0.7)]
    common, numbers = alike.lift([step(*setting) for setting in settings], SHAPES)
    assert {tuple(np.round(number.astype(float), 4).tolist()) for number in numbers} >= {(0.1, 0.1, 0.3), (0.5, 0.9, 0.7)}
    together = jax.jit(jax.vmap(lambda numbers: common(numbers, (X, W))))([jnp.asarray(number) for number in numbers])[0]
    for k, setting in enumerate(settings):
        np.testing.assert_allclose(together[k], step(*setting)(X, W)[0], rtol=0, atol=1e-6)
    assert np.abs(together[0] - together[1]).max() > 1e-4 < np.abs(together[0] - together[2]).max()


def test_equal_programs_have_no_numbers():
    common, numbers = alike.lift([step(1e-3, 0.1), step(1e-3, 0.1)], SHAPES)
    assert not numbers
    np.testing.assert_allclose(common([], (X, W))[0], step(1e-3, 0.1)(X, W)[0], rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    "other",
    [
        step(1e-3, 0.1, activation=jax.nn.relu),
        lambda x, w: [w],
        lambda x, w: [w * jnp.array([[1.0, 3.0]])],
        lambda x, w: [jax.lax.scan(lambda c, _: (c * 3.0, None), w, None, 2)[0]],
        lambda x, w: [jnp.sin(w * 2.0) - w],
    ],
    ids=["activation", "nothing", "array", "loop", "joined"],
)
def test_what_differs_in_more_than_numbers_is_refused(other):
    firsts = {
        "array": lambda x, w: [w * jnp.array([[1.0, 2.0]])],
        "loop": lambda x, w: [jax.lax.scan(lambda c, _: (c * 2.0, None), w, None, 2)[0]],
        "joined": lambda x, w: [w - jnp.sin(w * 2.0)],
    }
    for first in (step(1e-3, 0.1), *firsts.values()):
        with pytest.raises(alike.NotAlikeError):
            alike.lift([first, other], SHAPES)
        alike.lift([other, other], SHAPES)


def test_what_follows_from_the_shared_leaves_alone_is_made_first_unless_it_is_larger():
    def step(base, scale, x):
        return (x @ base.astype(jnp.bfloat16).astype(jnp.float32)).sum() + (jnp.tile(scale, 1000) * x.sum()).sum(), scale

    leaves = [np.arange(12.0, dtype=np.float32).reshape(3, 4), np.arange(4.0, dtype=np.float32), np.ones((2, 3), np.float32)]
    first, then = alike.apart(jax.make_jaxpr(step)(*leaves), [True, True, False])
    between = jax.jit(first)(leaves[:2])
    assert [x.shape for x in between] == [(3, 4)] and between[0].dtype == jnp.bfloat16, "the float32 of it is larger"
    for x in (leaves[2], 3 * leaves[2]):
        found = jax.jit(then)(between, [*leaves[:2], x])
        for one, other in zip(found, step(*leaves[:2], x), strict=True):
            np.testing.assert_array_equal(one, other)
    assert float(then([2 * between[0]], leaves)[0]) != float(then(between, leaves)[0]), "what was made first is what is read"
    nothing, all_of_it = alike.apart(jax.make_jaxpr(step)(*leaves), [False, False, False])
    assert nothing([]) == [] and float(all_of_it([], leaves)[0]) == float(then(between, leaves)[0])
