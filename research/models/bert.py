"""BERT (Devlin et al. 2019) and the post-norm encoders that differ from it only in field names and details: RoBERTa (Liu et al. 2019),
XLM-RoBERTa (Conneau et al. 2020), DistilBERT (Sanh et al. 2019), ELECTRA (Clark et al. 2020), ALBERT (Lan et al. 2020).

Letters in shapes are those of `research.layers.transformer`.
"""

import dataclasses
from collections.abc import Mapping
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
from research.layers.transformer import ACTIVATIONS, Batch, per_token
from research.models.output import EncoderOutput


@dataclasses.dataclass(frozen=True)
class Traits:
    """The differences between a family and BERT.

    `defaults` are the values of fields missing in `config.json`. `names` maps the family's field names to BERT's. `fixed` are values that
    override the config. With `after_padding`, the first position is the padding id plus 1. With `projects`, embeddings always pass
    through a dense layer.
    """

    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    after_padding: bool = False
    projects: bool = False


BERT = Traits()
ROBERTA = Traits({"vocab_size": 50265, "type_vocab_size": 2, "pad_token_id": 1}, after_padding=True)
XLM_ROBERTA = Traits({**ROBERTA.defaults, "vocab_size": 30522}, after_padding=True)
DISTILBERT = Traits(
    {"num_hidden_layers": 6},
    {
        "dim": "hidden_size",
        "n_layers": "num_hidden_layers",
        "n_heads": "num_attention_heads",
        "hidden_dim": "intermediate_size",
        "activation": "hidden_act",
    },
    fixed={"type_vocab_size": 0},
)
ELECTRA = Traits({"hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "embedding_size": 128})
ALBERT = Traits(
    {
        "vocab_size": 30000,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "embedding_size": 128,
        "num_hidden_groups": 1,
        "hidden_act": "gelu_new",
    },
    projects=True,
)


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """The shape of an encoder, named as in the Hugging Face config of BERT and ALBERT.

    `first_position` is the row of the position table for an example's first token. With `projects`, embeddings of `embedding_size`
    features pass through a dense layer. `num_hidden_groups` is the number of groups of consecutive layers that share parameters.
    """

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
    embedding_size: int = 0
    projects: bool = False
    first_position: int = 0
    num_hidden_groups: int = 0

    @classmethod
    def from_hf(cls, config: Mapping[str, Any], traits: Traits = BERT) -> "BertConfig":
        """Read the contents of a `config.json` of a family with the given traits. Raise InputError for a feature that is not supported."""
        transformer.require(config, position_embedding_type="absolute", is_decoder=False, inner_group_num=1)
        config = {**traits.defaults, **{traits.names.get(name, name): value for name, value in config.items()}, **traits.fixed}
        shape = cls(**{f.name: config[f.name] for f in dataclasses.fields(cls) if f.name in config})
        layers = shape.num_hidden_layers
        shape = dataclasses.replace(
            shape,
            embedding_size=shape.embedding_size or shape.hidden_size,
            num_hidden_groups=shape.num_hidden_groups or layers,
            projects=traits.projects or shape.embedding_size not in (0, shape.hidden_size),
            first_position=config["pad_token_id"] + 1 if traits.after_padding else 0,
        )
        transformer.check_shape("hidden_act", shape.hidden_act, shape.hidden_size, shape.num_attention_heads)
        if not 1 <= shape.num_hidden_groups <= layers:
            raise InputError(f"config.json: num_hidden_groups {shape.num_hidden_groups}, but there are {layers} layers")
        return shape

    @property
    def max_length(self) -> int:
        """Return the largest number of tokens of an example."""
        return self.max_position_embeddings - self.first_position


class Embeddings(nn.Module):
    """Normalised sum of word, position and type embeddings: [B, L] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float

    @nn.compact
    def __call__(self, batch: Batch, salt: jax.Array | None) -> jax.Array:
        c = self.config
        init = nn.initializers.normal(c.initializer_range)

        def table(size: int, name: str) -> Embed:
            return Embed(size, c.embedding_size, init, name=name)

        x, rows = table(c.vocab_size, "word")(batch["tokens"]), batch["positions"]
        extra = table(c.max_position_embeddings, "position")(rows_after_padding(batch, c.first_position) if c.first_position else rows)
        x += table(c.type_vocab_size, "type")(batch["types"]) + extra if c.type_vocab_size else extra
        x = Dropout(self.dropout)(LayerNorm(c.layer_norm_eps, name="norm")(x), per_token(salt))
        return transformer.dense(self.precision, c.hidden_size, c.initializer_range, "projection")(x) if c.projects else x


def rows_after_padding(batch: Batch, first: int) -> jax.Array:
    """Return each token's row of the position table, as `create_position_ids_from_input_ids` of transformers does: int32 [B, L].

    The padding token has the id and the row `first` - 1. An example's first token has row `first`. A padding token inside a text has the
    padding row and does not count towards the rows of later tokens.
    """
    segments, is_padding = batch["segments"], (batch["tokens"] == first - 1) & (batch["segments"] > 0)
    before = jnp.cumsum(is_padding, axis=1) - is_padding  # padding tokens earlier in the row
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    skipped = before - jax.lax.cummax(jnp.where(begins, before, 0), axis=1)  # padding tokens earlier in the same example
    return jnp.where(is_padding, first - 1, batch["positions"] + first - skipped)


class Attention(nn.Module):
    """Multi-head self-attention within segments, then residual and norm: [B, L, D] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, batch: Batch, mask: jax.Array, salt: jax.Array | None) -> jax.Array:
        c = self.config
        project = lambda name: transformer.dense(self.precision, c.hidden_size, c.initializer_range, name)  # noqa: E731
        core = Core(self.precision, self.attention_dropout, name="core")
        y = transformer.attend(x, batch, mask, salt, c.num_attention_heads, project, core)
        y = Dropout(self.dropout)(project("output")(y), per_token(salt))
        return LayerNorm(c.layer_norm_eps, name="norm")(x + y)


class Mlp(nn.Module):
    """Two dense layers with an activation between, then residual and norm: [B, L, D] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, salt: jax.Array | None) -> jax.Array:
        c, p = self.config, self.precision
        y = ACTIVATIONS[c.hidden_act](p.rounded(transformer.dense(p, c.intermediate_size, c.initializer_range, "up")(x)))
        y = Dropout(self.dropout)(transformer.dense(p, c.hidden_size, c.initializer_range, "down")(y), per_token(salt))
        return LayerNorm(c.layer_norm_eps, name="norm")(x + y)


class Layer(nn.Module):
    """One Transformer layer: [B, L, D] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, batch: Batch, mask: jax.Array, salt: jax.Array | None) -> jax.Array:
        x = Attention(self.config, self.precision, self.dropout, self.attention_dropout, name="attention")(x, batch, mask, salt)
        return Mlp(self.config, self.precision, self.dropout, name="mlp")(x, salt)


class Bert(nn.Module):
    """The encoder. `apply({"params": p}, batch)` is deterministic; `rngs={"dropout": key}` enables dropout.

    `start` skips the stages before it, with `hidden` [B, L, D] the output of stage `start - 1`; 0 starts from the tokens. `stop` skips
    that stage, all later stages and the pooler.
    """

    config: BertConfig
    precision: Precision = Precision()
    pooler: bool = True
    dropout: float = 0.1
    attention_dropout: float = 0.1

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages from bottom to top. Layers with shared parameters have the same name."""
        c = self.config
        return ("embeddings", *(f"layer_{i * c.num_hidden_groups // c.num_hidden_layers}" for i in range(c.num_hidden_layers)))

    @nn.compact
    def __call__(self, batch: Batch, start: int = 0, hidden: jax.Array | None = None, stop: int | None = None) -> EncoderOutput:
        c, names = self.config, self.stages
        salt = token_salt(batch) if self.has_rng("dropout") else None
        mask = transformer.same_segment(batch["segments"])
        x = Embeddings(c, self.precision, self.dropout, name="embeddings")(batch, salt) if start == 0 else hidden
        layers = {name: Layer(c, self.precision, self.dropout, self.attention_dropout, name=name) for name in dict.fromkeys(names[1:])}
        outputs = [x]
        for depth in range(max(start, 1), len(names) if stop is None else stop):
            calls = names[:depth].count(names[depth])  # gives each call of a shared layer its own dropout mask
            x = layers[names[depth]](x, batch, mask, salt if salt is None or not calls else salt + jnp.uint32(calls))
            outputs.append(x)
        pooled = None
        if self.pooler and stop is None:
            first = jnp.take_along_axis(x, batch["example_starts"][:, :, None], axis=1)
            pooled = jnp.tanh(transformer.dense(self.precision, c.hidden_size, c.initializer_range, "pooler")(first))
        return EncoderOutput(x, tuple(outputs), pooled)
