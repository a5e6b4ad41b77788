"""What every encoder gives."""

import flax.struct
import jax


class EncoderOutput(flax.struct.PyTreeNode):
    """`last` [B, L, D] float32; `stages` a tuple of [B, L, D], the first what entered the first layer that was computed;
    `pooled` [B, E, D] where the encoder has a pooler, else None."""

    last: jax.Array
    stages: tuple[jax.Array, ...]
    pooled: jax.Array | None = None
