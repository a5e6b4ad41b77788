"""Dropout whose mask is a hash of each element's coordinates, not a stream of random bits.

The mask is a function of (seed, step, example, position, feature). It does not depend on how examples are laid out in rows or on the
number of devices. XLA fuses the dozen integer operations of the hash into the multiplication, so the mask is not stored. The backward
pass recomputes it.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

GOLDEN = 0x9E3779B9  # 2**32 / golden ratio; multiplying by it spreads consecutive integers over all bits


class Rate(NamedTuple):
    """A dropout rate over 0 as two scalars, which may be arguments of a compiled program.

    `threshold` uint32: hashes below it are dropped. `scale` float32: 1 / (1 - rate).
    """

    threshold: jax.Array | np.uint32
    scale: jax.Array | np.float32

    @classmethod
    def of(cls, rate: "float | Rate") -> "Rate":
        """Return the scalars of a rate of at least 0 and less than 1."""
        return rate if isinstance(rate, cls) else cls(np.uint32(round(rate * 2**32)), np.float32(1.0 / (1.0 - rate)))


def mix(x: jax.Array) -> jax.Array:
    """Return a hash of each uint32, as uint32, in which every input bit affects every output bit (Wellons' lowbias32)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def token_salt(batch: dict[str, jax.Array]) -> jax.Array:
    """Return a hash of the example and the position of each token, uint32 [B, L]. A row may hold several examples."""
    segments = batch["segments"]
    examples = jnp.take_along_axis(batch["examples"], jnp.maximum(segments - 1, 0), axis=1)
    return mix(mix(examples.astype(jnp.uint32)) + batch["positions"].astype(jnp.uint32))


def keep_mask(rows: jax.Array, columns: jax.Array, rate: float | Rate) -> jax.Array:
    """Return a bool mask of the elements that `dropout` keeps, in the shape that `rows` and `columns` broadcast to."""
    x = rows ^ (columns * jnp.uint32(GOLDEN))
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)  # no last shift as in `mix`: it only changes low bits
    return x >= Rate.of(rate).threshold


def dropout(x: jax.Array, rows: jax.Array, columns: jax.Array, rate: float | Rate) -> jax.Array:
    """Set a fraction `rate` of the elements of `x` to zero and scale the others by 1 / (1 - rate).

    `rows` and `columns` are uint32 and broadcast to the shape of `x`. Their values at an element decide whether it is dropped.
    """
    return _dropout(x, rows, columns, Rate.of(rate))


@jax.custom_vjp
def _dropout(x: jax.Array, rows: jax.Array, columns: jax.Array, rate: Rate) -> jax.Array:
    return jnp.where(keep_mask(rows, columns, rate), x * rate.scale, 0.0)


_dropout.defvjp(
    lambda x, *mask_inputs: (_dropout(x, *mask_inputs), mask_inputs),
    lambda mask_inputs, g: (_dropout(g, *mask_inputs), None, None, None),
)


def module_rows(module: nn.Module, rows: jax.Array) -> jax.Array:
    """Return a hash of `rows`, the module and the step's dropout key, so that modules and steps have different masks.

    Further calls of one module in a step have the same mask. A caller that needs a different mask must pass different rows.
    """
    module.scope.rng_counters["dropout"] = 0  # Flax counts the module's calls, and `make_rng` depends on the count
    return mix(rows + jax.random.bits(module.make_rng("dropout"), (), jnp.uint32))


class Dropout(nn.Module):
    """Dropout of hidden states if the caller passes a "dropout" key to `apply`, else the identity.

    `rows` are uint32, one for each token (`token_salt`), and broadcast to `x`. `columns` default to the indices of the last axis.
    """

    rate: float | Rate

    @nn.compact
    def __call__(self, x: jax.Array, rows: jax.Array, columns: jax.Array | None = None) -> jax.Array:
        if not isinstance(self.rate, Rate) and self.rate == 0.0 or not self.has_rng("dropout"):
            return x
        if columns is None:
            columns = jnp.arange(x.shape[-1], dtype=jnp.uint32).reshape((1,) * (x.ndim - 1) + (-1,))
        return dropout(x, module_rows(self, rows), columns, self.rate)
