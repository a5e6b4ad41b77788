"""Keeps the compiler from computing early, and holding, what only the backward pass wants."""

from typing import Any

import jax
import jax.numpy as jnp


def anew(*kept: Any) -> tuple:
    """`kept`, opaque to the compiler, which otherwise keeps what the backward pass shares with the forward pass."""
    return jax.lax.optimization_barrier(kept)


def zero_after(x: jax.Array) -> jax.Array:
    """0 in the shape of `x`, but not before `x` is there: what it is added to waits, also where a barrier is taken away too soon."""
    return jnp.minimum(jnp.abs(x), 0.0)
