"""Dropout decided by a hash of where an element stands, not by a stream of random bits.

The mask is a function of (seed, step, example, position, feature): it does not depend on how examples are laid
out, or on the number of devices. XLA fuses the dozen integer operations into the multiplication, so no bits are stored. The backward pass
computes the mask again.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

GOLDEN = 0x9E3779B9  # 2**32 / golden ratio: spreads consecutive integers over all bits


def mix(x: jax.Array) -> jax.Array:
    """uint32 -> uint32, every input bit reaching every output bit (Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def token_salt(batch: dict[str, jax.Array]) -> jax.Array:
    """uint32 [B, L]: which token of which example stands where, for rows that hold several examples."""
    segments = batch["segments"]
    examples = jnp.take_along_axis(batch["examples"], jnp.maximum(segments - 1, 0), axis=1)
    return mix(mix(examples.astype(jnp.uint32)) + batch["positions"].astype(jnp.uint32))


def kept(rows: jax.Array, columns: jax.Array, rate: float) -> jax.Array:
    """Where `dropout` keeps an element: bool, in the shape that `rows` and `columns` broadcast to."""
    x = rows ^ (columns * jnp.uint32(GOLDEN))
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)  # the comparison reads the high bits, which are mixed by now
    return x >= jnp.uint32(round(rate * 2**32))


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def dropout(x: jax.Array, rows: jax.Array, columns: jax.Array, rate: float) -> jax.Array:
    """Zeroes a `rate` of the elements of `x` and scales the others by 1 / (1 - rate).

    `rows` and `columns` are uint32 and broadcast to the shape of `x`; an element's fate is a function of the two.
    """
    return jnp.where(kept(rows, columns, rate), x * (1.0 / (1.0 - rate)), 0.0)


dropout.defvjp(
    lambda x, rows, columns, rate: (dropout(x, rows, columns, rate), (rows, columns)),
    lambda rate, residuals, g: (dropout(g, *residuals, rate), None, None),
)


def placed(module: nn.Module, rows: jax.Array) -> jax.Array:
    """`rows` as they are for `module` in this step: other modules and other steps drop others.

    A module that is called again drops the same: where that must not be, its caller gives it other rows.
    """
    module.scope.rng_counters["dropout"] = 0  # Flax counts calls: beginning at a later one would drop others
    return mix(rows + jax.random.bits(module.make_rng("dropout"), (), jnp.uint32))


class Dropout(nn.Module):
    """Drops hidden states when the caller gives a "dropout" key to `apply`, and does nothing otherwise.

    `__call__(x, rows, columns=None)`: `rows` uint32, one for each token (`token_salt`), broadcasting to `x`; `columns` are
    the places in the last axis unless given.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, rows: jax.Array, columns: jax.Array | None = None) -> jax.Array:
        if self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        if columns is None:
            columns = jnp.arange(x.shape[-1], dtype=jnp.uint32).reshape((1,) * (x.ndim - 1) + (-1,))
        return dropout(x, placed(self, rows), columns, self.rate)
