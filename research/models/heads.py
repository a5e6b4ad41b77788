"""Task heads on top of an encoder, and pooling. Parameters of heads live under `head/`."""

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
    """The architecture of a model family's classifiers: pooling, an optional hidden layer, and a dense layer for the classes.

    `pooling` is as in `pool`. There is a hidden layer if `activation` is set, followed by a LayerNorm with epsilon `norm` if that is not 0.
    """

    pooling: str = "pooler"
    activation: str = ""
    norm: float = 0.0
    dense_bias: bool = True
    norm_bias: bool = True
    bias: bool = True
    padding: int | None = None  # the token id that pooling="last" skips
    tagger_has_hidden: bool = False  # whether token classifiers have the hidden layer too


def pool(encoded: EncoderOutput, batch: dict[str, jax.Array], pooling: str, padding: int | None = None) -> jax.Array:
    """Return one vector for each example: [B, L, D] -> [B, E, D].

    `pooler` is the output of the encoder's pooler (a tanh layer over the first token). `first` is the first token's hidden state. `last`
    is the hidden state of the last token whose id is not `padding`, or of the first token if all ids are. `mean` and `max` are taken for
    each feature over the example's tokens, and are 0 for an example without tokens. Raise InputError for another name, and for
    `pooler` if the encoder has no pooler.
    """
    if pooling == "pooler" and encoded.pooled is None:
        raise InputError("pooling='pooler', but this encoder has no pooler; use --config.pooling=first, mean or max")
    if pooling == "pooler":
        return encoded.pooled
    if pooling == "first":
        return jnp.take_along_axis(encoded.last, batch["example_starts"][:, :, None], axis=1)
    examples = batch["example_starts"].shape[1]
    if pooling == "last":
        index = jnp.broadcast_to(jnp.arange(encoded.last.shape[1]), batch["segments"].shape)
        index = index if padding is None else jnp.where(batch["tokens"] == padding, -1, index)
        last = jax.vmap(lambda x, ids: jax.ops.segment_max(x, ids, num_segments=examples + 1))(index, batch["segments"])[:, 1:]
        return jnp.take_along_axis(encoded.last, jnp.where(last < 0, batch["example_starts"], last)[:, :, None], axis=1)
    if pooling == "max":
        # A mask over [B, E, L, D] would take E times the memory of the hidden states.
        highest = jax.vmap(lambda x, ids: jax.ops.segment_max(x, ids, num_segments=examples + 1))(encoded.last, batch["segments"])[:, 1:]
        return jnp.where(highest == -jnp.inf, 0.0, highest)
    if pooling == "mean":
        numbers = jnp.arange(1, examples + 1)
        members = (batch["segments"][:, None, :] == numbers[None, :, None]).astype(jnp.float32)
        total = jnp.einsum("bel,bld->bed", members, encoded.last, precision=jax.lax.Precision.HIGHEST)
        return total / jnp.maximum(members.sum(-1, keepdims=True), 1.0)
    raise InputError(f"pooling {pooling!r}: {nearest(pooling, POOLINGS)}")


def hidden_layer(style: Style, x: jax.Array, size: int, std: float) -> jax.Array:
    """Return the output of the style's hidden layer: activation(dense(x)) with `size` features, then LayerNorm if the style has one.

    The parameters are `dense` and `norm` of the calling module. The kernel starts with standard deviation `std`.
    """
    dense = nn.Dense(size, style.dense_bias, kernel_init=nn.initializers.normal(std), precision=EXACT, name="dense")
    x = ACTIVATIONS[style.activation](dense(x))
    return LayerNorm(style.norm, style.norm_bias, name="norm")(x) if style.norm else x


class Classifier(nn.Module):
    """Dropout and a dense layer over the pooled vector: logits [B, E, C], always computed in float32.

    With `pooling` "pooler", pooling and hidden layer are those of the family's `style`. With another `pooling`, there is no hidden layer.
    With a `reader`, `reader(encoded, batch)` [B, L, any] replaces the last hidden states. "pooler" raises InputError then.
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
            x = Dropout(self.dropout)(hidden_layer(style, x, x.shape[-1], self.initializer_range), rows)
        return nn.Dense(self.classes, style.bias, kernel_init=init, precision=EXACT, name="classifier")(x)


class Pooled(nn.Module):
    """The pooled vector of each example, [B, E, D] float32; with `normalize`, divided by its length. It has no parameters."""

    pooling: str
    padding: int | None = None
    normalize: bool = False

    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        x = pool(encoded, batch, self.pooling, self.padding)
        return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24)) if self.normalize else x


class Tagger(nn.Module):
    """Dropout and a dense layer over every token's hidden state: logits [B, L, C], computed in float32.

    With a `reader`, `reader(encoded, batch)` [B, L, any] replaces the last hidden states."""

    classes: int
    dropout: float = 0.1
    initializer_range: float = 0.02
    reader: nn.Module | None = None
    style: Style = Style()

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        x = encoded.last if self.reader is None else self.reader(encoded, batch)
        if self.style.tagger_has_hidden:
            x = hidden_layer(self.style, x, x.shape[-1], self.initializer_range)
        x = Dropout(self.dropout)(x, token_salt(batch)[:, :, None] if self.has_rng("dropout") else None)
        init = nn.initializers.normal(self.initializer_range)
        return nn.Dense(self.classes, kernel_init=init, precision=EXACT, name="classifier")(x)


class LanguageModel(nn.Module):
    """A masked or causal language modelling head: logits [B, L, V] for each position, computed in float32.

    `words` [V, W] is the encoder's word embedding table. The output layer uses it too, unless `untied` gives the layer a separate
    table. Before the output layer is the hidden layer of `style`, with W features, if it has an activation. `bias` adds a bias [V].
    """

    style: Style
    bias: bool
    untied: bool = False

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array], words: jax.Array) -> jax.Array:
        x = encoded.last
        if self.style.activation:
            x = hidden_layer(self.style, x, words.shape[1], 0.02)
        if self.untied:
            words = self.param("words", nn.initializers.normal(0.02), words.shape)
        x = jnp.einsum("bld,vd->blv", x, words, precision=EXACT)
        return x + self.param("bias", nn.initializers.zeros, (words.shape[0],))[None, None] if self.bias else x


class EncoderWithHead(nn.Module):
    """An encoder with its head: `apply({"params": {"encoder": ..., "head": ...}}, batch)` returns the head's logits."""

    encoder: nn.Module
    head: nn.Module

    def __call__(self, batch: dict[str, jax.Array]) -> jax.Array:
        encoded = self.encoder(batch)
        if not isinstance(self.head, LanguageModel):
            return self.head(encoded, batch)
        return self.head(encoded, batch, self.encoder.variables["params"]["embeddings"]["word"]["embedding"])
