"""The post-norm Transformer encoders: BERT (Devlin et al. 2019), and those that differ from it in names and details: RoBERTa (Liu et
al. 2019), XLM-RoBERTa (Conneau et al. 2020), DistilBERT (Sanh et al. 2019), ELECTRA (Clark et al. 2020), ALBERT (Lan et al. 2020).

Letters in shapes are those of `blocks`.
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
from research.layers.transformer import ACTIVATIONS, Batch, by_row
from research.models.output import EncoderOutput


@dataclasses.dataclass(frozen=True)
class Traits:
    """How a family differs from BERT.

    `defaults` are what its `config.json` means where it says nothing, `names` how it calls what BERT's has, `fixed` what holds whatever
    it says. `after_padding`: an example's first token has the position after the padding's id. `projects`: embeddings always pass
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

    `first_position` is the row of the position table that belongs to an example's first token. `projects` says whether embeddings of
    `embedding_size` features pass through a dense layer. `num_hidden_groups` is how many layers have parameters of their own, which
    others next to them share.
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
        """From the contents of a `config.json` of a family with these traits. Raises InputError on what this encoder does not do."""
        transformer.only(config, position_embedding_type="absolute", is_decoder=False, inner_group_num=1)
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
        transformer.check("hidden_act", shape.hidden_act, shape.hidden_size, shape.num_attention_heads)
        if not 1 <= shape.num_hidden_groups <= layers:
            raise InputError(f"config.json: num_hidden_groups {shape.num_hidden_groups}, but there are {layers} layers")
        return shape

    @property
    def max_length(self) -> int:
        """The most tokens an example can have."""
        return self.max_position_embeddings - self.first_position


class Embeddings(nn.Module):
    """Word + position + type, normalised: [B, L] -> [B, L, D]."""

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
        further = table(c.max_position_embeddings, "position")(rows_after_padding(batch, c.first_position) if c.first_position else rows)
        x += table(c.type_vocab_size, "type")(batch["types"]) + further if c.type_vocab_size else further
        x = Dropout(self.dropout)(LayerNorm(c.layer_norm_eps, name="norm")(x), by_row(salt))
        return transformer.dense(self.precision, c.hidden_size, c.initializer_range, "projection")(x) if c.projects else x


def rows_after_padding(batch: Batch, first: int) -> jax.Array:
    """Return the rows of the position table as `create_position_ids_from_input_ids` of transformers gives them: int32 [B, L].

    An example's first token has row `first`, the one after that of padding. A token inside a text that is the padding token (its id is
    `first` - 1) has the row of padding, and is not counted for those after it.
    """
    segments, is_padding = batch["segments"], (batch["tokens"] == first - 1) & (batch["segments"] > 0)
    before = jnp.cumsum(is_padding, axis=1) - is_padding  # padding tokens earlier in the row
    begins = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    skipped = before - jax.lax.cummax(jnp.where(begins, before, 0), axis=1)  # of these, the ones of the same example
    return jnp.where(is_padding, first - 1, batch["positions"] + first - skipped)


class Attention(nn.Module):
    """Multi-head self-attention between tokens of one segment, with its residual and norm: [B, L, D] -> [B, L, D]."""

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
        y = Dropout(self.dropout)(project("output")(y), by_row(salt))
        return LayerNorm(c.layer_norm_eps, name="norm")(x + y)


class Mlp(nn.Module):
    """Two dense layers with an activation between, residual and norm: [B, L, D] -> [B, L, D]."""

    config: BertConfig
    precision: Precision
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, salt: jax.Array | None) -> jax.Array:
        c, p = self.config, self.precision
        y = ACTIVATIONS[c.hidden_act](p.rounded(transformer.dense(p, c.intermediate_size, c.initializer_range, "up")(x)))
        y = Dropout(self.dropout)(transformer.dense(p, c.hidden_size, c.initializer_range, "down")(y), by_row(salt))
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
        """The depth-ordered units, as their parameters are named: a name stands several times where layers share theirs."""
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
            again = names[:depth].count(names[depth])  # the same layer drops others the next time
            x = layers[names[depth]](x, batch, mask, salt if salt is None or not again else salt + jnp.uint32(again))
            outputs.append(x)
        pooled = None
        if self.pooler and stop is None:
            first = jnp.take_along_axis(x, batch["example_starts"][:, :, None], axis=1)
            pooled = jnp.tanh(transformer.dense(self.precision, c.hidden_size, c.initializer_range, "pooler")(first))
        return EncoderOutput(x, tuple(outputs), pooled)
