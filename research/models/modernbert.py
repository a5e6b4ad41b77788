"""ModernBERT (Warner et al. 2024): a pre-norm encoder with rotary positions and gated feed-forward layers.

Layers have either global attention or local attention in a window around each token.

Letters in shapes are those of `research.layers.transformer`.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import InputError
from research.layers import transformer
from research.layers.attention import Core
from research.layers.dropout import Dropout, token_salt
from research.layers.embedding import Embed
from research.layers.norm import LayerNorm
from research.layers.precision import Precision
from research.layers.transformer import ACTIVATIONS, Batch, per_token, residual_std
from research.models.output import EncoderOutput

LOCAL, GLOBAL = "sliding_attention", "full_attention"
THETAS = {GLOBAL: ("global_rope_theta", 160_000.0), LOCAL: ("local_rope_theta", 10_000.0)}


@dataclasses.dataclass(frozen=True)
class ModernBertConfig:
    """The shape of a ModernBERT, named as in the Hugging Face config.

    `layer_types` has `LOCAL` or `GLOBAL` for each layer. `thetas` has the base of the rotary frequencies for each type.
    """

    vocab_size: int = 50368
    hidden_size: int = 768
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    intermediate_size: int = 1152
    max_position_embeddings: int = 8192
    hidden_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: int = 128
    initializer_range: float = 0.02
    layer_types: tuple[str, ...] = ()
    thetas: tuple[tuple[str, float], ...] = ()

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "ModernBertConfig":
        """Read the contents of a `config.json`, in the old or new format. Raise InputError for a feature that is not supported."""
        shape = cls(**{f.name: config[f.name] for f in dataclasses.fields(cls) if f.name in config and f.name != "thetas"})
        every = config.get("global_attn_every_n_layers", 3)
        types = tuple(shape.layer_types or (LOCAL if i % every else GLOBAL for i in range(shape.num_hidden_layers)))
        if len(types) != shape.num_hidden_layers or not set(types) <= {LOCAL, GLOBAL}:
            raise InputError(f"config.json: layer_types must be {LOCAL!r} or {GLOBAL!r} for each of {shape.num_hidden_layers} layers")
        transformer.check_shape("hidden_activation", shape.hidden_activation, shape.hidden_size, shape.num_attention_heads)
        transformer.require(config, rope_scaling=None)
        return dataclasses.replace(shape, layer_types=types, thetas=tuple((kind, _theta(config, kind)) for kind in THETAS))

    @property
    def max_length(self) -> int:
        """Return the largest number of tokens of an example."""
        return self.max_position_embeddings


def _theta(config: dict[str, Any], kind: str) -> float:
    name, default = THETAS[kind]
    rope = (config.get("rope_parameters") or {}).get(kind) or {}
    if rope.get("rope_type", "default") != "default":
        raise InputError(f"config.json: rope_type {rope['rope_type']!r} is not supported; only 'default' is")
    return float(rope.get("rope_theta", config.get(name, default)))


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotate features i and i + d / 2 of `x` [B * H, L, d] by each token's angle i, from `angles` [B, L, d / 2].

    This is equation 34 of Su et al. 2021, but with pairs of features from the two halves instead of neighbours.
    """
    (N, L, d), B = x.shape, angles.shape[0]
    x = x.reshape(B, N // B, L, 2, d // 2)
    cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
    first, second = x[..., 0, :], x[..., 1, :]
    return jnp.stack([first * cos - second * sin, second * cos + first * sin], axis=-2).reshape(N, L, d)


class Attention(nn.Module):
    """Norm, multi-head self-attention with rotary positions, then residual: [B, L, D] -> [B, L, D]. The first layer has no norm."""

    config: ModernBertConfig
    precision: Precision
    dropout: float
    kind: str
    normed: bool

    @nn.compact
    def __call__(self, x: jax.Array, batch: Batch, mask: jax.Array, salt: jax.Array | None) -> jax.Array:
        c, d = self.config, self.config.hidden_size // self.config.num_attention_heads
        project = functools.partial(transformer.dense, self.precision, c.hidden_size, bias=c.attention_bias)
        frequencies = dict(c.thetas)[self.kind] ** (-jnp.arange(0, d, 2, dtype=jnp.float32) / d)
        angles = batch["positions"].astype(jnp.float32)[:, :, None] * frequencies[None, None]
        rotary = lambda q, k: (rotate(q, angles), rotate(k, angles))  # noqa: E731
        core = Core(self.precision, self.dropout, name="core")
        y = LayerNorm(c.norm_eps, c.norm_bias, name="norm")(x) if self.normed else x
        y = transformer.attend(y, batch, mask, salt, c.num_attention_heads, lambda name: project(c.initializer_range, name), core, rotary)
        return x + Dropout(self.dropout)(project(residual_std(c), "output")(y), per_token(salt))


class Mlp(nn.Module):
    """Norm, down(activation(up(x)) * gate(x)), then residual: [B, L, D] -> [B, L, D]."""

    config: ModernBertConfig
    precision: Precision
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, salt: jax.Array | None) -> jax.Array:
        c, p = self.config, self.precision
        y = LayerNorm(c.norm_eps, c.norm_bias, name="norm")(x)
        up, gate = (transformer.dense(p, c.intermediate_size, c.initializer_range, name, c.mlp_bias)(y) for name in ("up", "gate"))
        y = ACTIVATIONS[c.hidden_activation](p.rounded(up)) * gate
        return x + transformer.dense(p, c.hidden_size, residual_std(c), "down", c.mlp_bias)(Dropout(self.dropout)(y, per_token(salt)))


class Layer(nn.Module):
    """Layer number `number`: [B, L, D] -> [B, L, D]. The last layer normalises its output."""

    config: ModernBertConfig
    precision: Precision
    dropout: float
    attention_dropout: float
    number: int

    @nn.compact
    def __call__(self, x: jax.Array, batch: Batch, salt: jax.Array | None) -> jax.Array:
        c, kind = self.config, self.config.layer_types[self.number]
        mask = transformer.same_segment(batch["segments"])
        if kind == LOCAL:  # within a segment, indices in the row have the same distances as positions in the text
            index = jnp.arange(x.shape[1])
            mask &= (jnp.abs(index[:, None] - index[None, :]) <= c.local_attention // 2)[None, None]
        attention = Attention(c, self.precision, self.attention_dropout, kind, normed=self.number > 0, name="attention")
        x = Mlp(c, self.precision, self.dropout, name="mlp")(attention(x, batch, mask, salt), salt)
        last = self.number == c.num_hidden_layers - 1
        return LayerNorm(c.norm_eps, c.norm_bias, name="final_norm")(x) if last else x


class Embeddings(nn.Module):
    """Normalised word embeddings: [B, L] -> [B, L, D]."""

    config: ModernBertConfig
    dropout: float

    @nn.compact
    def __call__(self, batch: Batch, salt: jax.Array | None) -> jax.Array:
        c = self.config
        x = Embed(c.vocab_size, c.hidden_size, nn.initializers.normal(c.initializer_range), name="word")(batch["tokens"])
        return Dropout(self.dropout)(LayerNorm(c.norm_eps, c.norm_bias, name="norm")(x), per_token(salt))


class ModernBert(nn.Module):
    """The encoder, called as `bert.Bert` is. It has no pooler."""

    config: ModernBertConfig
    precision: Precision = Precision()
    dropout: float = 0.0
    attention_dropout: float = 0.0

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages from bottom to top. A stage's parameters live under its name."""
        return ("embeddings", *(f"layer_{i}" for i in range(self.config.num_hidden_layers)))

    @nn.compact
    def __call__(self, batch: Batch, start: int = 0, hidden: jax.Array | None = None, stop: int | None = None) -> EncoderOutput:
        c = self.config
        salt = token_salt(batch) if self.has_rng("dropout") else None
        x = Embeddings(c, self.dropout, name="embeddings")(batch, salt) if start == 0 else hidden
        outputs = [x]
        for name in self.stages[max(start, 1) : stop]:
            number = int(name.removeprefix("layer_"))
            x = Layer(c, self.precision, self.dropout, self.attention_dropout, number, name=name)(x, batch, salt)
            outputs.append(x)
        return EncoderOutput(x, tuple(outputs))
