"""Heads: what a task puts on top of an encoder. Their parameters live under `head/`."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import InputError, nearest
from research.models.dropout import Dropout, mix
from research.models.encoded import Encoded

POOLINGS = ("pooler", "first", "mean", "max")


def pool(encoded: Encoded, batch: dict[str, jax.Array], pooling: str) -> jax.Array:
    """One vector for each example: [B, L, D] -> [B, E, D].

    `pooler` is the encoder's own (a tanh layer over the first token), `first` the first token's state, `mean` the mean
    over the example's tokens, `max` the largest of each feature over them; without tokens, both are 0. Raises InputError for
    another name, or for `pooler` where the encoder has none.
    """
    if pooling == "pooler" and encoded.pooled is None:
        raise InputError("pooling='pooler', but this encoder has no pooler; use --config.pooling=first, mean or max")
    if pooling == "pooler":
        return encoded.pooled
    if pooling == "first":
        return jnp.take_along_axis(encoded.last, batch["anchors"][:, :, None], axis=1)
    places = batch["anchors"].shape[1]
    if pooling == "max":
        # By segment, not over a mask: [B, E, L, D] would be as many times the states as a row has places.
        highest = jax.vmap(lambda x, at: jax.ops.segment_max(x, at, num_segments=places + 1))(encoded.last, batch["segments"])[:, 1:]
        return jnp.where(highest == -jnp.inf, 0.0, highest)
    if pooling == "mean":
        numbers = jnp.arange(1, places + 1)
        members = (batch["segments"][:, None, :] == numbers[None, :, None]).astype(jnp.float32)
        total = jnp.einsum("bel,bld->bed", members, encoded.last, precision=jax.lax.Precision.HIGHEST)
        return total / jnp.maximum(members.sum(-1, keepdims=True), 1.0)
    raise InputError(f"pooling {pooling!r}: {nearest(pooling, POOLINGS)}")


class Classifier(nn.Module):
    """Dropout and a dense layer over the pooled vector: logits [B, E, C], always computed in float32.

    A `reader` makes the states that are pooled: `reader(encoded, batch)` gives [B, L, any]. What it gives has no pooler.
    """

    classes: int
    pooling: str
    dropout: float = 0.1
    initializer_range: float = 0.02
    reader: nn.Module | None = None

    @nn.compact
    def __call__(self, encoded: Encoded, batch: dict[str, jax.Array]) -> jax.Array:
        if self.reader is not None:
            if self.pooling == "pooler":
                raise InputError("pooling='pooler' reads the encoder's last states, but the method has a reader; use mean, first or max")
            encoded = Encoded(self.reader(encoded, batch), ())
        x = pool(encoded, batch, self.pooling)
        rows = mix(batch["examples"].astype(jnp.uint32))[:, :, None] if self.has_rng("dropout") else None
        x = Dropout(self.dropout)(x, rows)
        init = nn.initializers.normal(self.initializer_range)
        return nn.Dense(self.classes, kernel_init=init, precision=jax.lax.Precision.HIGHEST, name="classifier")(x)
