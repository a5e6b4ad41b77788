"""The output of every encoder."""

import flax.struct
import jax


class EncoderOutput(flax.struct.PyTreeNode):
    """The hidden states of an encoder, float32.

    `last` [B, L, D] are the last hidden states. `stages` are the hidden states [B, L, D] of each stage, first the input of the first
    layer that was computed. `pooled` [B, E, D] is the pooler's output, or None without a pooler.
    """

    last: jax.Array
    stages: tuple[jax.Array, ...]
    pooled: jax.Array | None = None
