"""Readers: what a head makes of an encoder's states before it pools them. Their parameters live under `head/reader/`.

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
    """`reader(encoded, batch)` gives the features [B, L, any], of the states `encoded.stages` of the stages that it asks for.

    A feature of a token must not depend on other examples of its row (`batch["segments"]`). What stands in padding is not used.
    """

    def stages(self, total: int) -> tuple[int, ...]:
        """Which of an encoder's `total` stages are read, ascending; 0 is the embeddings. The last one unless overridden."""
        return (total - 1,)

    def for_vocabulary(self, size: int) -> "Reader":
        """The same for token ids under `size`, for those that read the tokens too."""
        return self

    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        raise NotImplementedError


class OneStage(Reader):
    """The states of stage number `stage`: [B, L, D]."""

    stage: int

    def stages(self, total: int) -> tuple[int, ...]:
        return (self.stage,)

    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        return encoded.stages[0]


class LastJoined(Reader):
    """The states of the last `count` layers joined, or of all layers where there are fewer, the lowest first: [B, L, K * D]."""

    count: int

    def stages(self, total: int) -> tuple[int, ...]:
        return tuple(range(max(1, total - self.count), total))

    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        return jnp.concatenate(encoded.stages, axis=-1)


class ScalarMix(Reader):
    """gamma * sum_j softmax(s)_j h_j over all stages, embeddings included: [B, L, D]. `s` [K] begins with 0, `gamma` with 1.

    Raises InputError where stages have different numbers of features.
    """

    def stages(self, total: int) -> tuple[int, ...]:
        return tuple(range(total))

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        if len(sizes := {states.shape[-1] for states in encoded.stages}) > 1:
            raise InputError(f"scalar_mix adds stages up, but this encoder's have {', '.join(map(str, sorted(sizes)))} features")
        s = self.param("s", nn.initializers.zeros, (len(encoded.stages),))
        gamma = self.param("gamma", nn.initializers.ones, ())
        parts = jax.nn.softmax(s)
        return gamma * sum(part * states for part, states in zip(parts, encoded.stages, strict=True))


class LstmOver(Reader):
    """`layers` BiLSTMs, one on top of the other, over the last states: [B, L, 2 * H]."""

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
    """The last states joined with those of a BiLSTM over word embeddings of its own, [`vocabulary`, `embedding`]: [B, L, D + 2 * H]."""

    embedding: int
    size: int
    precision: Precision = Precision()
    vocabulary: int = 0

    def for_vocabulary(self, size: int) -> "LstmBeside":
        return self.clone(vocabulary=size)

    @nn.compact
    def __call__(self, encoded: EncoderOutput, batch: dict[str, jax.Array]) -> jax.Array:
        words = nn.Embed(self.vocabulary, self.embedding, name="word")(batch["tokens"])
        own = BiLstm(self.size, self.precision, name="lstm")(words, batch["segments"])
        return jnp.concatenate([encoded.stages[0], own], axis=-1)
