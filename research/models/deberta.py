"""DeBERTa-v2 and v3 (He et al. 2021): a post-norm encoder with disentangled attention.

Attention scores are sums of terms for the contents of tokens and terms for their relative positions, which have separate embeddings.

Letters in shapes are those of `research.layers.transformer`.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.errors import InputError
from research.layers import transformer
from research.layers.attention import Core
from research.layers.dropout import Dropout, token_salt
from research.layers.embedding import Embed, lookup
from research.layers.norm import LayerNorm
from research.layers.precision import Precision
from research.layers.transformer import Batch, per_token
from research.models.bert import Mlp
from research.models.output import EncoderOutput


@dataclasses.dataclass(frozen=True)
class DebertaConfig:
    """The shape of a DeBERTa, named as in the Hugging Face config. `pos_att_type` holds "c2p", "p2c", both or neither."""

    vocab_size: int = 128100
    hidden_size: int = 1536
    num_hidden_layers: int = 24
    num_attention_heads: int = 24
    intermediate_size: int = 6144
    max_position_embeddings: int = 512
    type_vocab_size: int = 0
    layer_norm_eps: float = 1e-7
    hidden_act: str = "gelu"
    initializer_range: float = 0.02
    max_relative_positions: int = -1
    position_buckets: int = -1
    position_biased_input: bool = True
    share_att_key: bool = False
    norm_rel_ebd: str = "none"
    pos_att_type: tuple[str, ...] = ()

    @classmethod
    def from_hf(cls, config: dict[str, Any]) -> "DebertaConfig":
        """Read the contents of a `config.json`. Raise InputError for a feature that is not supported."""
        if not config.get("relative_attention"):
            raise InputError("config.json: relative_attention is not true; only DeBERTa with relative attention is supported")
        transformer.require(config, conv_kernel_size=0, embedding_size=config.get("hidden_size", cls.hidden_size))
        shape = cls(**{f.name: config[f.name] for f in dataclasses.fields(cls) if f.name in config})
        kinds = shape.pos_att_type or ()
        kinds = tuple(kind.strip().lower() for kind in (kinds.split("|") if isinstance(kinds, str) else kinds))
        if not set(kinds) <= {"c2p", "p2c"}:
            raise InputError(f"config.json: pos_att_type {'|'.join(kinds)!r} is not supported; only 'c2p', 'p2c' and both are")
        transformer.check_shape("hidden_act", shape.hidden_act, shape.hidden_size, shape.num_attention_heads)
        max_distance = shape.max_relative_positions if shape.max_relative_positions > 0 else shape.max_position_embeddings
        return dataclasses.replace(shape, pos_att_type=kinds, max_relative_positions=max_distance)

    @property
    def span(self) -> int:
        """Return the number of distances or buckets of distances in each direction."""
        return self.position_buckets if self.position_buckets > 0 else self.max_relative_positions

    @property
    def max_length(self) -> int:
        """Return the largest number of tokens of an example."""
        return self.max_position_embeddings

    def distance_rows(self, distances: np.ndarray) -> np.ndarray:
        """Return the row of the relative position table for each distance (query index minus key index), int32.

        Each small distance has a row. With `position_buckets`, larger distances share rows, in buckets of a logarithmic scale.
        """
        buckets = distances
        if self.position_buckets > 0:
            middle = self.position_buckets // 2
            ratio = np.maximum(np.abs(distances), middle).astype(np.float32) / np.float32(middle)
            log_buckets = np.ceil(np.log(ratio) / np.log(np.float32((self.max_relative_positions - 1) / middle)) * (middle - 1)) + middle
            buckets = np.where(np.abs(distances) <= middle, distances, log_buckets * np.sign(distances))
        return np.clip(buckets + self.span, 0, 2 * self.span - 1).astype(np.int32)


class Embeddings(nn.Module):
    """Normalised sum of word embeddings and, if the model has them, position and type embeddings: [B, L] -> [B, L, D], 0 in padding."""

    config: DebertaConfig
    dropout: float

    def setup(self):
        c = self.config
        table = lambda size: Embed(size, c.hidden_size, nn.initializers.normal(c.initializer_range))  # noqa: E731
        self.word, self.norm, self.drop = table(c.vocab_size), LayerNorm(c.layer_norm_eps), Dropout(self.dropout)
        if c.position_biased_input:
            self.position = table(c.max_position_embeddings)
        if c.type_vocab_size:
            self.type = table(c.type_vocab_size)
        self.distance = self.param("distance", nn.initializers.normal(c.initializer_range), (2 * c.span, c.hidden_size))
        if "layer_norm" in c.norm_rel_ebd:
            self.distance_norm = LayerNorm(c.layer_norm_eps)

    def __call__(self, batch: Batch, salt: jax.Array | None) -> jax.Array:
        x = self.word(batch["tokens"])
        if self.config.position_biased_input:
            x += self.position(batch["positions"])
        if self.config.type_vocab_size:
            x += self.type(batch["types"])
        return self.drop(jnp.where((batch["segments"] > 0)[:, :, None], self.norm(x), 0.0), per_token(salt))

    def distances(self, rows: np.ndarray) -> jax.Array:
        """Return the relative position embeddings that all layers use, for rows [M] of their table: [M, D]."""
        x = lookup(self.distance, jnp.asarray(rows))
        return self.distance_norm(x) if "layer_norm" in self.config.norm_rel_ebd else x


class Attention(nn.Module):
    """Disentangled self-attention, then residual and norm: [B, L, D] -> [B, L, D].

    The score of query i and key j is q_i . k_j + q_i . K(i - j) + k_j . Q(i - j), over sqrt(3 d) (He et al. 2021, equations 2 to 4).
    K and Q are projections of `distances` [2 L, D], the embeddings of the distances L - 1 to -L. `distance_rows` [2 L] are their rows in
    the table and identify them for dropout.
    """

    config: DebertaConfig
    precision: Precision
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, distances: jax.Array, distance_rows: jax.Array, batch: Batch, mask: jax.Array, salt: Any) -> jax.Array:
        c, p = self.config, self.precision
        (B, L, D), H = x.shape, c.num_attention_heads
        project = functools.cache(functools.partial(transformer.dense, p, D, c.initializer_range))  # tokens and distances may share a layer
        z = Dropout(self.dropout)(distances, distance_rows[:, None])[None]
        heads_first = lambda y: y.reshape(-1, y.shape[1], H, D // H).swapaxes(1, 2).reshape(-1, y.shape[1], D // H)  # noqa: E731
        # Each row has a copy. The gradient of a shared table is a product that sums over two axes, which CPUs do not have in bfloat16.
        for_each_row = lambda y: jnp.tile(heads_first(y), (B, 1, 1))  # noqa: E731
        q, k, v = (heads_first(project(name)(x)) for name in ("query", "key", "value"))
        scale = (1 + len(c.pos_att_type)) ** -0.5
        q, bias = q * scale, jnp.zeros((B * H, L, L))
        if "c2p" in c.pos_att_type:
            distance_k = for_each_row(project("key" if c.share_att_key else "pos_key")(z))
            bias += by_key_index(p.einsum("nld,nmd->nlm", q, distance_k))
        if "p2c" in c.pos_att_type:
            distance_q = for_each_row(project("query" if c.share_att_key else "pos_query")(z))[:, -2::-1] * scale
            bias += by_key_index(p.einsum("nld,nmd->nlm", k, jnp.pad(distance_q, ((0, 0), (0, 1), (0, 0))))).swapaxes(1, 2)
        core = Core(p, self.attention_dropout, name="core")
        y = core(q, k, v, mask, *transformer.attention_salts(batch, salt, H), bias * (D // H) ** -0.5)
        y = y.reshape(B, H, L, D // H).swapaxes(1, 2).reshape(B, L, D)
        y = Dropout(self.dropout)(project("output")(y), per_token(salt))
        return LayerNorm(c.layer_norm_eps, name="norm")(x + y)


def by_key_index(x: jax.Array) -> jax.Array:
    """Return `x` [N, L, 2 L] with columns by key index, [N, L, L]. Column m of row i of `x` is for the key i + m - (L - 1)."""
    N, L, _ = x.shape
    return x.reshape(N, -1)[:, L - 1 : L - 1 + L * (2 * L - 1)].reshape(N, L, 2 * L - 1)[..., :L]


class Layer(nn.Module):
    """One Transformer layer: [B, L, D] -> [B, L, D]."""

    config: DebertaConfig
    precision: Precision
    dropout: float
    attention_dropout: float

    @nn.compact
    def __call__(self, x: jax.Array, distances: jax.Array, distance_rows: jax.Array, batch: Batch, mask: jax.Array, salt: Any) -> jax.Array:
        attention = Attention(self.config, self.precision, self.dropout, self.attention_dropout, name="attention")
        x = attention(x, distances, distance_rows, batch, mask, salt)
        return Mlp(self.config, self.precision, self.dropout, name="mlp")(x, salt)


class Deberta(nn.Module):
    """The encoder, called as `bert.Bert` is. It has no pooler."""

    config: DebertaConfig
    precision: Precision = Precision()
    dropout: float = 0.1
    attention_dropout: float = 0.1

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages from bottom to top. The relative position embeddings belong to the stage `embeddings`."""
        return ("embeddings", *(f"layer_{i}" for i in range(self.config.num_hidden_layers)))

    @nn.compact
    def __call__(self, batch: Batch, start: int = 0, hidden: jax.Array | None = None, stop: int | None = None) -> EncoderOutput:
        c, L = self.config, batch["segments"].shape[1]
        salt = token_salt(batch) if self.has_rng("dropout") else None
        mask = transformer.same_segment(batch["segments"])
        embeddings = Embeddings(c, self.dropout, name="embeddings")
        x = embeddings(batch, salt) if start == 0 else hidden
        distance_rows = c.distance_rows(np.arange(L - 1, -L - 1, -1))
        distances = embeddings.distances(distance_rows)
        outputs = [x]
        for name in self.stages[max(start, 1) : stop]:
            layer = Layer(c, self.precision, self.dropout, self.attention_dropout, name=name)
            x = layer(x, distances, jnp.asarray(distance_rows, jnp.uint32), batch, mask, salt)
            outputs.append(x)
        return EncoderOutput(x, tuple(outputs))
