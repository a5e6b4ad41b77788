"""Stacked BiLSTMs over word embeddings: an encoder small enough to be trained from scratch.

Letters in shapes: B rows of a batch, L tokens of a row, D features of an embedding, H size of a direction.
"""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax

from research.errors import InputError
from research.layers.dropout import Dropout, token_salt
from research.layers.embedding import WordEmbeddings
from research.layers.lstm import BiLstm
from research.layers.precision import Precision
from research.models.output import EncoderOutput


@dataclasses.dataclass(frozen=True)
class BiLstmConfig:
    """The shape: `layers` BiLSTMs with `size` features in each direction, over embeddings with `embedding` features."""

    vocab_size: int
    embedding: int
    size: int
    layers: int
    num_attention_heads: ClassVar[int] = 0
    max_length: ClassVar[int] = 2**31 - 1  # there is no position table

    @classmethod
    def of(cls, config: dict[str, Any]) -> "BiLstmConfig":
        """Read a config with the fields of this class. Raise InputError for a value below 1."""
        sizes = {name: config[name] for name in ("vocab_size", "embedding", "size", "layers")}
        if wrong := next((name for name, value in sizes.items() if value < 1), None):
            raise InputError(f"bilstm.{wrong}={sizes[wrong]} must be at least 1")
        return cls(**sizes)

    @property
    def hidden_size(self) -> int:
        """Return the number of features of a layer's states: both directions."""
        return 2 * self.size


class BiLstmEncoder(nn.Module):
    """The encoder, called as `bert.Bert` is: [B, L] tokens -> embeddings [B, L, D], then states [B, L, 2 * H] of each layer.

    Dropout is applied to the input of each layer (Zaremba et al. 2014, section 3.1), also if `start` skips the embeddings. An example
    has the same states in a row with others as alone; see `lstm.BiLstm`.
    """

    config: BiLstmConfig
    precision: Precision = Precision()
    dropout: float = 0.5

    @property
    def stages(self) -> tuple[str, ...]:
        """Return the names of the stages from bottom to top. A stage's parameters live under its name."""
        return ("embeddings", *(f"layer_{i}" for i in range(self.config.layers)))

    @nn.compact
    def __call__(
        self, batch: dict[str, jax.Array], start: int = 0, hidden: jax.Array | None = None, stop: int | None = None
    ) -> EncoderOutput:
        c, names = self.config, self.stages
        salt = token_salt(batch)[:, :, None] if self.has_rng("dropout") else None
        x = WordEmbeddings(c.vocab_size, c.embedding, name="embeddings")(batch["tokens"]) if start == 0 else hidden
        outputs = [x]
        for depth in range(max(start, 1), len(names) if stop is None else stop):
            x = Dropout(self.dropout, name=f"dropout_{depth}")(x, salt)  # named, so that the mask does not depend on `start`
            x = BiLstm(c.size, self.precision, name=names[depth])(x, batch["segments"])
            outputs.append(x)
        return EncoderOutput(x, tuple(outputs))
