"""GPT-2 (Radford et al. 2019): a pre-norm Transformer with causal attention.

Letters in shapes are those of `research.layers.transformer`.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers import transformer
from research.layers.attention import Core
from research.layers.dropout import Dropout, token_salt
from research.layers.embedding import Embed
from research.layers.norm import LayerNorm
from research.layers.precision import Precision
from research.layers.transformer import ACTIVATIONS, Batch, per_token, residual_std
from research.models.output import EncoderOutput

# Field names of GPT-2's config -> those of other families.
NAMES = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_positions": "max_position_embeddings"}
NAMES |= {"n_inner": "intermediate_size", "activation_function": "hidden_act", "layer_norm_epsilon": "layer_norm_eps"}


@dataclasses.dataclass(frozen=True)
class Gpt2Config:
    """The shape of a GPT-2, with the field names of the other families."""

    vocab_size: int = 50257
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    max_position_embeddings: int = 1024
    hidden_act: str = "gelu_new"
    layer_norm_eps: float = 1e-5
    initializer_range: float = 0.02

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "Gpt2Config":
        """Read the contents of a `config.json`. Raise InputError for a feature that is not supported."""
        transformer.require(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
        config = {NAMES.get(name, name): value for name, value in config.items()}
        shape = cls(**{f.name: config[f.name] for f in dataclasses.fields(cls) if f.name in config})
        transformer.check_shape("activation_function", shape.hidden_act, shape.hidden_size, shape.num_attention_heads)
        return dataclasses.replace(shape, intermediate_size=shape.intermediate_size or 4 * shape.hidden_size)

    @property
    def max_length(self) -> int:
        """Return the largest number of tokens of an example."""
        return self.max_position_embeddings


class Attention(nn.Module):
    """Norm, multi-head self-attention, then residual: [B, L, D] -> [B, L, D]."""

    config: Gpt2Config
    precision: Precision
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, batch: Batch, mask: jax.Array, salt: jax.Array | None) -> jax.Array:
        c = self.config
        project = functools.partial(transformer.dense, self.precision, c.hidden_size)
        core = Core(self.precision, self.attention_dropout, name="core")
        y = LayerNorm(c.layer_norm_eps, name="norm")(x)
        y = transformer.attend(y, batch, mask, salt, c.num_attention_heads, lambda name: project(c.initializer_range, name), core)
        return x + Dropout(self.dropout)(project(residual_std(c), "output")(y), per_token(salt))


class Mlp(nn.Module):
    """Norm, two dense layers with an activation between, then residual: [B, L, D] -> [B, L, D]."""

    config: Gpt2Config
    precision: Precision
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, salt: jax.Array | None) -> jax.Array:
        c, p = self.config, self.precision
        y = transformer.dense(p, c.intermediate_size, c.initializer_range, "up")(LayerNorm(c.layer_norm_eps, name="norm")(x))
        y = transformer.dense(p, c.hidden_size, residual_std(c), "down")(ACTIVATIONS[c.hidden_act](p.rounded(y)))
        return x + Dropout(self.dropout)(y, per_token(salt))


class Layer(nn.Module):
    """One Transformer layer: [B, L, D] -> [B, L, D]. The `last` layer normalises its output."""

    config: Gpt2Config
    precision: Precision
    dropout: float
    attention_dropout: float
    last: bool

    @nn.compact
    def __call__(self, x: jax.Array, batch: Batch, mask: jax.Array, salt: jax.Array | None) -> jax.Array:
        c, p = self.config, self.precision
        x = Attention(c, p, self.dropout, self.attention_dropout, name="attention")(x, batch, mask, salt)
        x = Mlp(c, p, self.dropout, name="mlp")(x, salt)
        return LayerNorm(c.layer_norm_eps, name="final_norm")(x) if self.last else x


class Embeddings(nn.Module):
    """Sum of word and position embeddings: [B, L] -> [B, L, D]."""

    config: Gpt2Config
    dropout: float

    @nn.compact
    def __call__(self, batch: Batch, salt: jax.Array | None) -> jax.Array:
        c = self.config
        table = lambda size, name: Embed(size, c.hidden_size, nn.initializers.normal(c.initializer_range), name=name)  # noqa: E731
        x = table(c.vocab_size, "word")(batch["tokens"]) + table(c.max_position_embeddings, "position")(batch["positions"])
        return Dropout(self.dropout)(x, per_token(salt))


class Gpt2(nn.Module):
    """The model without its head, called as `bert.Bert` is. It has no pooler: an example's last token attends to the whole example."""

    config: Gpt2Config
    precision: Precision = Precision()
    dropout: float = 0.1
    attention_dropout: float = 0.1

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages from bottom to top. A stage's parameters live under its name."""
        return ("embeddings", *(f"layer_{i}" for i in range(self.config.num_hidden_layers)))

    @nn.compact
    def __call__(self, batch: Batch, start: int = 0, hidden: jax.Array | None = None, stop: int | None = None) -> EncoderOutput:
        c, L = self.config, batch["segments"].shape[1]
        salt = token_salt(batch) if self.has_rng("dropout") else None
        mask = transformer.same_segment(batch["segments"]) & jnp.tril(jnp.ones((L, L), bool))[None, None]
        x = Embeddings(c, self.dropout, name="embeddings")(batch, salt) if start == 0 else hidden
        outputs = [x]
        for name in self.stages[max(start, 1) : stop]:
            last = name == self.stages[-1]
            x = Layer(c, self.precision, self.dropout, self.attention_dropout, last, name=name)(x, batch, mask, salt)
            outputs.append(x)
        return EncoderOutput(x, tuple(outputs))
