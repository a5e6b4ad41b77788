"""Test that rematerialisation gives the same gradients with less memory."""

import jax
import jax.numpy as jnp
import numpy as np

from research.layers import remat

WIDTH, LAYERS = 64, 8


def chain(wrap):
    """Return the gradient function of (x, kernels) for a chain of layers that close over their kernels."""

    def loss(x, kernels):
        for kernel in kernels:
            layer = lambda x, kernel=kernel: jnp.tanh(jnp.tanh(jnp.tanh(x @ kernel) * 2.0) @ kernel.T)  # noqa: E731
            x = wrap(layer, x)
        return (x**2).sum()

    return jax.jit(jax.grad(loss, argnums=(0, 1)))


def arguments(rows):
    random = np.random.default_rng(0)
    kernels = [random.normal(size=(WIDTH, 4 * WIDTH)).astype(np.float32) / np.sqrt(WIDTH) for _ in range(LAYERS)]
    return random.normal(size=(rows, WIDTH)).astype(np.float32), kernels


def test_rematerialised_gradients_are_the_same_also_for_closed_over_arrays():
    x, kernels = arguments(16)
    stored, rematerialized = (chain(wrap)(x, kernels) for wrap in (lambda f, x: f(x), remat.rematerialize))
    for expected, actual in zip(jax.tree.leaves(stored), jax.tree.leaves(rematerialized), strict=True):
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


def test_rematerialize_saves_memory_on_a_cpu_and_jax_checkpoint_does_not():
    x, kernels = arguments(4096)
    compiled = {
        name: chain(wrap).lower(x, kernels).compile()
        for name, wrap in (
            ("plain", lambda f, x: f(x)),
            ("rematerialised", remat.rematerialize),
            ("checkpoint", lambda f, x: jax.checkpoint(f)(x)),
        )
    }
    memory = {name: program.memory_analysis().temp_size_in_bytes for name, program in compiled.items()}
    work = {name: program.cost_analysis()["flops"] for name, program in compiled.items()}
    assert memory["rematerialised"] < 0.6 * memory["plain"]
    assert memory["checkpoint"] > 0.9 * memory["plain"]
    assert work["rematerialised"] > 1.2 * work["plain"]
