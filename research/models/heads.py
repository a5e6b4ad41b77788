"""Heads: what a task puts on top of an encoder. Their parameters live under `head/`."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import InputError, nearest
from research.layers.dropout import Dropout, mix, token_salt
from research.layers.norm import LayerNorm
from research.layers.transformer import ACTIVATIONS
from research.models.output import EncoderOutput

POOLINGS = ("pooler", "first", "last", "mean", "max")
EXACT = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class Style:
    """How classifiers of a family are built: what they read of an example (`pool`), then, where there is an `activation`, a dense
    layer of their own with it, and a norm over that where there is a `norm`, its epsilon; then the classes."""

    pooling: str = "pooler"
    activation: str = ""
    norm: float = 0.0
    dense_bias: bool = True
    norm_bias: bool = True
    bias: bool = True
    padding: int | None = None  # where the last token is read: the id that counts as none
    tags_like_this: bool = False  # whether classifiers of tokens have the layer too


def pool(encoded: EncoderOutput, batch: dict[str, jax.Array], pooling: str, padding: int | None = None) -> jax.Array:
    """One vector for each example: [B, L, D] -> [B, E, D].

    `pooler` is the encoder's own (a tanh layer over the first token), `first` the first token's state, `last` that of the last token
    that is not `padding` (the first, where all are), `mean` the mean over the example's tokens, `max` the largest of each feature over
    them; without tokens, both are 0. Raises InputError for another name, or for `pooler` where the encoder has none.
    """
    if pooling == "pooler" and encoded.pooled is None:
        raise InputError("pooling='pooler', but this encoder has no pooler; use --config.pooling=first, mean or max")
    if pooling == "pooler":
        return encoded.pooled
    if pooling == "first":
        return jnp.take_along_axis(encoded.last, batch["example_starts"][:, :, None], axis=1)
    places = batch["example_starts"].shape[1]
    if pooling == "last":
        place = jnp.broadcast_to(jnp.arange(encoded.last.shape[1]), batch["segments"].shape)
        place = place if padding is None else jnp.where(batch["tokens"] == padding, -1, place)
        last = jax.vmap(lambda x, at: jax.ops.segment_max(x, at, num_segments=places + 1))(place, batch["segments"])[:, 1:]
        return jnp.take_along_axis(encoded.last, jnp.where(last < 0, batch["example_starts"], last)[:, :, None], axis=1)
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


def own_layer(style: Style, x: jax.Array, size: int, std: float) -> jax.Array:
    """What a family's heads compute before their last layer: f(dense x) of `size` features, normed where the family does. Its
    parameters are `dense` and `norm` of the module that calls it."""
    dense = nn.Dense(size, style.dense_bias, kernel_init=nn.initializers.normal(std), precision=EXACT, name="dense")
    x = ACTIVATIONS[style.activation](dense(x))
    return LayerNorm(style.norm, style.norm_bias, name="norm")(x) if style.norm else x


class Classifier(nn.Module):
    """Dropout and a dense layer over the pooled vector: logits [B, E, C], always computed in float32.

    `pooling` "pooler" is the way of the encoder's family, its `style`; else there is nothing but the pooled vector. A `reader` makes the
    states that are pooled: `reader(encoded, batch)` gives [B, L, any]. What it gives has no pooler.
    """

    classes: int
    pooling: str
    dropout: float = 0.1
    initializer_range: float = 0.02
    reader: nn.Module | None = None
    style: Style = Style()

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        style = self.style if self.pooling == "pooler" else Style(self.pooling)
        if self.reader is not None:
            if self.pooling == "pooler":
                raise InputError("pooling='pooler' reads the encoder's last states, but the method has a reader; use mean, first or max")
            encoded = EncoderOutput(self.reader(encoded, batch), ())
        x = pool(encoded, batch, style.pooling, style.padding)
        rows = mix(batch["examples"].astype(jnp.uint32))[:, :, None] if self.has_rng("dropout") else None
        x = Dropout(self.dropout)(x, rows)
        init = nn.initializers.normal(self.initializer_range)
        if style.activation:
            x = Dropout(self.dropout)(own_layer(style, x, x.shape[-1], self.initializer_range), rows)
        return nn.Dense(self.classes, style.bias, kernel_init=init, precision=EXACT, name="classifier")(x)


class Tagger(nn.Module):
    """Dropout and a dense layer over every token's state: logits [B, L, C], computed in float32."""

    classes: int
    dropout: float = 0.1
    initializer_range: float = 0.02
    style: Style = Style()

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        x = encoded.last
        if self.style.tags_like_this:
            x = own_layer(self.style, x, x.shape[-1], self.initializer_range)
        x = Dropout(self.dropout)(x, token_salt(batch)[:, :, None] if self.has_rng("dropout") else None)
        init = nn.initializers.normal(self.initializer_range)
        return nn.Dense(self.classes, kernel_init=init, precision=EXACT, name="classifier")(x)


class LanguageModel(nn.Module):
    """What stands at each token's place, or comes after it: logits [B, L, V], computed in float32.

    `words` [V, W] is the table that tokens are read from, which the last layer shares unless `own_words`. Before it stands what `style`
    says, of W features, where it has an activation; `bias` [V] is added where there is one.
    """

    style: Style
    bias: bool
    own_words: bool = False

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array], words: jax.Array) -> jax.Array:
        x = encoded.last
        if self.style.activation:
            x = own_layer(self.style, x, words.shape[1], 0.02)
        if self.own_words:
            words = self.param("words", nn.initializers.normal(0.02), words.shape)
        x = jnp.einsum("bld,vd->blv", x, words, precision=EXACT)
        return x + self.param("bias", nn.initializers.zeros, (words.shape[0],))[None, None] if self.bias else x


class Whole(nn.Module):
    """An encoder and its head in one: `apply({"params": {"encoder": ..., "head": ...}}, batch)` gives the head's logits."""

    encoder: nn.Module
    head: nn.Module

    def __call__(self, batch: dict[str, jax.Array]) -> jax.Array:
        encoded = self.encoder(batch)
        if not isinstance(self.head, LanguageModel):
            return self.head(encoded, batch)
        return self.head(encoded, batch, self.encoder.variables["params"]["embeddings"]["word"]["embedding"])
