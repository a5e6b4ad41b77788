"""Embedding tables."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers.remat import zero_dependent_on


@jax.custom_vjp
def lookup(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Return the rows of `table` [V, D] at int32 `ids` [...]: [..., D]."""
    return jnp.take(table, ids, axis=0)


def _lookup_backward(residuals, g: jax.Array):
    ids, table = residuals
    # Zeros without a dependence on g would be allocated early and held during the whole step.
    return jnp.full(table.shape, zero_dependent_on(g.reshape(-1)[0])).at[ids].add(g), None


lookup.defvjp(lambda table, ids: (lookup(table, ids), (ids, table)), _lookup_backward)


class Embed(nn.Module):
    """An embedding table of `size` vectors. Its parameter is named `embedding`, as in `flax.linen.Embed`."""

    size: int
    features: int
    init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        return lookup(self.param("embedding", self.init, (self.size, self.features)), ids)


RANGE = 0.25  # gives random vectors about the variance of pretrained ones (Kim 2014, section 3.3)


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -RANGE, RANGE)


class WordEmbeddings(nn.Module):
    """Word embeddings: int32 [B, L] -> float32 [B, L, `features`]. The table is `word/embedding` [`size`, `features`]."""

    size: int
    features: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        return Embed(self.size, self.features, _uniform, name="word")(tokens)
