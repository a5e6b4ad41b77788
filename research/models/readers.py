"""Readers: modules of a head that compute the features to be pooled from the encoder's hidden states.

Their parameters live under `head/reader/`.

Letters in shapes: B rows of a batch, L tokens of a row, D hidden size, K stages that are read, H size of an LSTM's direction.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import InputError
from research.layers.lstm import BiLstm
from research.layers.precision import Precision
from research.models.output import EncoderOutput


class Reader(nn.Module):
    """Base class. `reader(encoded, batch)` returns features [B, L, any]; `encoded.stages` holds the stages that `stages` returned.

    A token's features must not depend on other examples in its row (`batch["segments"]`). Features in padding are not used.
    """

    def stages(self, total: int) -> tuple[int, ...]:
        """Return the indices of the stages to read, ascending, of `total` stages. 0 is the embeddings. The default is the last stage."""
        return (total - 1,)

    def for_vocabulary(self, size: int) -> "Reader":
        """Return this reader for token ids below `size`. Only readers with word embeddings override it."""
        return self

    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        raise NotImplementedError


class OneStage(Reader):
    """The hidden states of the stage with index `stage`: [B, L, D]."""

    stage: int

    def stages(self, total: int) -> tuple[int, ...]:
        return (self.stage,)

    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        return encoded.stages[0]


class LastJoined(Reader):
    """Concatenated hidden states of the last `count` layers, or of all layers if there are fewer, lowest first: [B, L, K * D]."""

    count: int

    def stages(self, total: int) -> tuple[int, ...]:
        return tuple(range(max(1, total - self.count), total))

    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        return jnp.concatenate(encoded.stages, axis=-1)


class ScalarMix(Reader):
    """gamma * sum_j softmax(s)_j h_j over all stages, embeddings included: [B, L, D]. `s` [K] starts at 0, `gamma` at 1.

    Raise InputError if stages have different numbers of features.
    """

    def stages(self, total: int) -> tuple[int, ...]:
        return tuple(range(total))

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        if len(sizes := {states.shape[-1] for states in encoded.stages}) > 1:
            raise InputError(f"scalar_mix needs stages of one size, but this encoder's have {', '.join(map(str, sorted(sizes)))} features")
        s = self.param("s", nn.initializers.zeros, (len(encoded.stages),))
        gamma = self.param("gamma", nn.initializers.ones, ())
        weights = jax.nn.softmax(s)
        return gamma * sum(weight * states for weight, states in zip(weights, encoded.stages, strict=True))


class LstmOver(Reader):
    """`layers` stacked BiLSTMs over the last hidden states: [B, L, 2 * H]."""

    size: int
    layers: int
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        x = encoded.stages[0]
        for number in range(self.layers):
            x = BiLstm(self.size, self.precision, name=f"lstm_{number}")(x, batch["segments"])
        return x


class LstmBeside(Reader):
    """The last hidden states concatenated with a BiLSTM over new word embeddings [`vocabulary`, `embedding`]: [B, L, D + 2 * H]."""

    embedding: int
    size: int
    precision: Precision = Precision()
    vocabulary: int = 0

    def for_vocabulary(self, size: int) -> "LstmBeside":
        return self.clone(vocabulary=size)

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        words = nn.Embed(self.vocabulary, self.embedding, name="word")(batch["tokens"])
        states = BiLstm(self.size, self.precision, name="lstm")(words, batch["segments"])
        return jnp.concatenate([encoded.stages[0], states], axis=-1)
