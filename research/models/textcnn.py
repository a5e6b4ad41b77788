"""TextCNN (Kim 2014): filters over windows of word embeddings. The head takes the maximum of each filter over a text.

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
    """The shape: `filters` filters for each window size (in words) in `windows`, over embeddings with `embedding` features."""

    vocab_size: int
    embedding: int
    filters: int
    windows: tuple[int, ...]
    num_attention_heads: ClassVar[int] = 0
    max_length: ClassVar[int] = 2**31 - 1  # there is no position table

    @classmethod
    def of(cls, config: dict[str, Any]) -> "TextCnnConfig":
        """Read a config with the fields of this class, but `windows` as a comma-separated string. Raise InputError for an invalid value."""
        sizes = {name: config[name] for name in ("vocab_size", "embedding", "filters")}
        if wrong := next((name for name, value in sizes.items() if value < 1), None):
            raise InputError(f"textcnn.{wrong}={sizes[wrong]} must be at least 1")
        windows = [window.strip() for window in config["windows"].split(",")]
        if not all(window.isdecimal() and int(window) for window in windows) or len(set(windows)) < len(windows):
            raise InputError(f"textcnn.windows={config['windows']!r} must be different numbers of words, separated by commas: 3,4,5")
        return cls(**sizes, windows=tuple(map(int, windows)))

    @property
    def hidden_size(self) -> int:
        """Return the number of features of the layer's states: all filters."""
        return self.filters * len(self.windows)


class Windows(nn.Module):
    """relu(W x[t : t + w] + b) for each window size w: [B, L, D] with `segments` [B, L] -> [B, L, F * windows]; 0 in padding.

    Vectors beyond a segment's end are replaced by zeros. So an example has the same states in a row with others as alone, and texts
    shorter than a window have states too. `window_w` has the kernel [w * D, F], with the first D rows for the first word. It costs
    2 * w * D * F FLOPs a token.
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
    """Return for each token the vector `k` positions later, [B, L, D], or zeros if that is not in the same segment."""
    length = x.shape[1]
    shifted = jnp.pad(x, ((0, 0), (0, k), (0, 0)))[:, k : k + length]
    same = jnp.pad(segments, ((0, 0), (0, k)), constant_values=-1)[:, k : k + length] == segments
    return jnp.where(same[..., None], shifted, 0.0)


class TextCnn(nn.Module):
    """The encoder, called as `bert.Bert` is: [B, L] tokens -> embeddings [B, L, D], then states [B, L, F * windows].

    Unlike in Kim 2014, where only the head has dropout, dropout is also applied to the embeddings.
    """

    config: TextCnnConfig
    precision: Precision = Precision()
    dropout: float = 0.5

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages from bottom to top. A stage's parameters live under its name."""
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
