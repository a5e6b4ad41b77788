"""The first stage of encoders that know nothing of a token but which word it is."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.models.lean import Embed

RANGE = 0.25  # random vectors then vary about as pretrained ones do (Kim 2014, section 3.3)


def _uniform(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -RANGE, RANGE)


class WordEmbeddings(nn.Module):
    """A vector for each word: int32 [B, L] -> float32 [B, L, `features`]. The table is `word/embedding` [`size`, `features`]."""

    size: int
    features: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        return Embed(self.size, self.features, _uniform, name="word")(tokens)
