"""TextCNN (Kim 2014): filters over windows of word embeddings. The largest of each filter over a text is taken by the head.

Letters in shapes: B rows of a batch, L tokens of a row, D features of an embedding, F filters of a window.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import InputError
from research.layers.dropout import Dropout, token_salt
from research.layers.embedding import WordEmbeddings
from research.layers.precision import Precision
from research.models.output import EncoderOutput


@dataclasses.dataclass(frozen=True)
class TextCnnConfig:
    """The shape: so many `filters` over each of `windows`, numbers of words, of embeddings of `embedding` features."""

    vocab_size: int
    embedding: int
    filters: int
    windows: tuple[int, ...]
    num_attention_heads: ClassVar[int] = 0
    max_length: ClassVar[int] = 2**31 - 1  # no table of positions ends it

    @classmethod
    def of(cls, config: dict[str, Any]) -> "TextCnnConfig":
        """From a config with these fields, in which `windows` are apart by commas. Raises InputError where one makes no sense."""
        sizes = {name: config[name] for name in ("vocab_size", "embedding", "filters")}
        if wrong := next((name for name, value in sizes.items() if value < 1), None):
            raise InputError(f"textcnn.{wrong}={sizes[wrong]} must be at least 1")
        words = [word.strip() for word in config["windows"].split(",")]
        if not all(word.isdecimal() and int(word) for word in words) or len(set(words)) < len(words):
            raise InputError(f"textcnn.windows={config['windows']!r} must be different numbers of words, apart by commas: 3,4,5")
        return cls(**sizes, windows=tuple(map(int, words)))

    @property
    def hidden_size(self) -> int:
        """Features of the layer's states: all filters."""
        return self.filters * len(self.windows)


class Windows(nn.Module):
    """relu(W x[t : t + w] + b) for each window of w words: [B, L, D] with `segments` [B, L] -> [B, L, F * windows]; 0 in padding.

    What lies beyond a segment's end counts as zeros, so a row gives what its examples give alone, and short texts have
    windows too. `window_w` has the kernel [w * D, F], the first D rows for the first word. Costs 2 * w * D * F FLOPs a token each.
    """

    config: TextCnnConfig
    precision: Precision

    @nn.compact
    def __call__(self, x: jax.Array, segments: jax.Array) -> jax.Array:
        windows = self.config.windows
        ahead = [_ahead(x, segments, k) for k in range(max(windows))]

        def filtered(w: int) -> jax.Array:
            dense = nn.Dense(self.config.filters, dot_general=self.precision.dot_general, name=f"window_{w}")
            return dense(jnp.concatenate(ahead[:w], axis=-1))

        states = jax.nn.relu(jnp.concatenate([filtered(w) for w in windows], axis=-1))
        return jnp.where((segments > 0)[..., None], states, 0.0)


def _ahead(x: jax.Array, segments: jax.Array, k: int) -> jax.Array:
    """At each token, the vector `k` places further [B, L, D]: zeros where that is not in the same segment."""
    length = x.shape[1]
    moved = jnp.pad(x, ((0, 0), (0, k), (0, 0)))[:, k : k + length]
    same = jnp.pad(segments, ((0, 0), (0, k)), constant_values=-1)[:, k : k + length] == segments
    return jnp.where(same[..., None], moved, 0.0)


class TextCnn(nn.Module):
    """The encoder, called as `bert.Bert`: [B, L] tokens -> states [B, L, D], then [B, L, F * windows].

    Dropout is on what enters the layer, too: Kim drops only what the head reads.
    """

    config: TextCnnConfig
    precision: Precision = Precision()
    dropout: float = 0.5

    @property
    def stages(self) -> tuple[str, ...]:
        """The depth-ordered units, as their parameters are named."""
        return ("embeddings", "layer_0")

    @nn.compact
    def __call__(
        self, batch: dict[str, jax.Array], start: int = 0, hidden: jax.Array | None = None, stop: int | None = None
    ) -> EncoderOutput:
        c = self.config
        x = WordEmbeddings(c.vocab_size, c.embedding, name="embeddings")(batch["tokens"]) if start == 0 else hidden
        outputs = [x]
        if start < 2 and stop != 1:
            x = Dropout(self.dropout)(x, token_salt(batch)[:, :, None] if self.has_rng("dropout") else None)
            x = Windows(c, self.precision, name="layer_0")(x, batch["segments"])
            outputs.append(x)
        return EncoderOutput(x, tuple(outputs))
