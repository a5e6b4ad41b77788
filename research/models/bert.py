"""BERT (Devlin et al. 2019): a post-norm Transformer encoder.

Letters in shapes: B rows of a batch, L tokens of a row, E examples of a row, D hidden size, F feed-forward size,
H attention heads, d = D / H.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import InputError, nearest
from research.models.attention import Core
from research.models.dropout import Dropout, token_salt
from research.models.encoded import Encoded
from research.models.lean import Embed, LayerNorm, gelu
from research.precision import Precision

ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x.astype(jnp.float32), approximate=True),
    "relu": lambda x: jax.nn.relu(x.astype(jnp.float32)),
    "silu": lambda x: jax.nn.silu(x.astype(jnp.float32)),
}


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT, named as in the Hugging Face config."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_act: str = "gelu"
    initializer_range: float = 0.02

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "BertConfig":
        """From the contents of a `config.json`. Raises InputError on what this encoder does not do."""
        kind = config.get("position_embedding_type", "absolute")
        if kind != "absolute":
            raise InputError(f"config.json: position_embedding_type {kind!r} is not supported; only 'absolute' is")
        if config.get("is_decoder"):
            raise InputError("config.json: is_decoder is true, but this is an encoder: every token reads every other")
        shape = cls(**{f.name: config[f.name] for f in dataclasses.fields(cls) if f.name in config})
        if shape.hidden_act not in ACTIVATIONS:
            raise InputError(f"config.json: hidden_act {shape.hidden_act!r}: {nearest(shape.hidden_act, ACTIVATIONS)}")
        if shape.hidden_size % shape.num_attention_heads:
            raise InputError(f"config.json: hidden_size {shape.hidden_size} does not divide by {shape.num_attention_heads} attention heads")
        return shape


class Embeddings(nn.Module):
    """Word + position + type, normalised: [B, L] -> [B, L, D]."""

    config: BertConfig
    dropout: float

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], salt: jax.Array | None) -> jax.Array:
        c = self.config
        init = nn.initializers.normal(c.initializer_range)

        def table(size: int, name: str) -> Embed:
            return Embed(size, c.hidden_size, init, name=name)

        x = table(c.vocab_size, "word")(batch["tokens"])
        x += table(c.type_vocab_size, "type")(batch["types"]) + table(c.max_position_embeddings, "position")(batch["positions"])
        return Dropout(self.dropout)(LayerNorm(c.layer_norm_eps, name="norm")(x), _rows(salt))


class Attention(nn.Module):
    """Multi-head self-attention between tokens of one segment, with its residual and norm: [B, L, D] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, batch: dict[str, jax.Array], mask: jax.Array, salt: jax.Array | None) -> jax.Array:
        c = self.config
        (B, L, D), H = x.shape, c.num_attention_heads
        heads_first = lambda y: y.reshape(B, L, H, D // H).swapaxes(1, 2).reshape(B * H, L, D // H)  # noqa: E731
        q, k, v = (heads_first(_dense(c, self.precision, D, name)(x)) for name in ("query", "key", "value"))
        core = Core(self.precision, self.attention_dropout, name="core")
        y = core(q, k, v, mask, *_attention_places(batch, salt, H))
        y = y.reshape(B, H, L, D // H).swapaxes(1, 2).reshape(B, L, D)
        y = Dropout(self.dropout)(_dense(c, self.precision, D, "output")(y), _rows(salt))
        return LayerNorm(c.layer_norm_eps, name="norm")(x + y)


class Mlp(nn.Module):
    """Two dense layers with an activation between, residual and norm: [B, L, D] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, salt: jax.Array | None) -> jax.Array:
        c = self.config
        y = ACTIVATIONS[c.hidden_act](self.precision.rounded(_dense(c, self.precision, c.intermediate_size, "up")(x)))
        y = Dropout(self.dropout)(_dense(c, self.precision, c.hidden_size, "down")(y), _rows(salt))
        return LayerNorm(c.layer_norm_eps, name="norm")(x + y)


class Layer(nn.Module):
    """One Transformer layer: [B, L, D] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, batch: dict[str, jax.Array], mask: jax.Array, salt: jax.Array | None) -> jax.Array:
        x = Attention(self.config, self.precision, self.dropout, self.attention_dropout, name="attention")(x, batch, mask, salt)
        return Mlp(self.config, self.precision, self.dropout, name="mlp")(x, salt)


class Bert(nn.Module):
    """The encoder. `apply({"params": p}, batch)` is deterministic; with `rngs={"dropout": key}` it drops.

    `start` and `hidden` [B, L, D] begin at a later stage: `hidden` is what stage `start - 1` gave (0 begins with the tokens).
    `stop` ends before that stage, and then nothing is pooled.
    """

    config: BertConfig
    precision: Precision = Precision()
    pooler: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.1

    @property
    def stages(self) -> tuple[str, ...]:
        """The depth-ordered units, as their parameters are named."""
        return ("embeddings", *(f"layer_{i}" for i in range(self.config.num_hidden_layers)))

    @nn.compact
    def __call__(self, batch: dict[str, jax.Array], start: int = 0, hidden: jax.Array | None = None, stop: int | None = None) -> Encoded:
        c, segments = self.config, batch["segments"]
        salt = token_salt(batch) if self.has_rng("dropout") else None
        # Queries in padding read the first segment, as they do in a padded batch elsewhere: outputs agree at every place.
        mask = (jnp.maximum(segments, 1)[:, :, None] == segments[:, None, :])[:, None]
        x = Embeddings(c, self.dropout, name="embeddings")(batch, salt) if start == 0 else hidden
        outputs = [x]
        for name in self.stages[max(start, 1) : stop]:
            x = Layer(c, self.precision, self.dropout, self.attention_dropout, name=name)(x, batch, mask, salt)
            outputs.append(x)
        pooled = None
        if self.pooler and stop is None:
            first = jnp.take_along_axis(x, batch["anchors"][:, :, None], axis=1)
            pooled = jnp.tanh(_dense(c, self.precision, c.hidden_size, "pooler")(first))
        return Encoded(x, tuple(outputs), pooled)


def _dense(config: BertConfig, precision: Precision, features: int, name: str) -> nn.Dense:
    init = nn.initializers.normal(config.initializer_range)
    return nn.Dense(features, dot_general=precision.dot_general, kernel_init=init, name=name)


def _rows(salt: jax.Array | None) -> jax.Array | None:
    return None if salt is None else salt[:, :, None]


def _attention_places(batch, salt: jax.Array | None, heads: int):
    """Rows [B, H, L, 1] and columns [B, 1, 1, L] of the attention weights, for dropout."""
    if salt is None:
        return None, None
    head = jnp.arange(heads, dtype=jnp.uint32)[None, :, None, None] * jnp.uint32(0x85EBCA6B)
    return salt[:, None, :, None] ^ head, batch["positions"][:, None, None, :].astype(jnp.uint32)
