"""Embedding: the vector of each text, for `--mode=embed`. Nothing is trained."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from research.models.heads import Pooled, Style
from research.tasks.base import Batch, Column, Task


@dataclasses.dataclass(frozen=True)
class Embedding(Task):
    """The pseudo-task of embedding texts. The head returns the pooled vector; with `normalize`, a vector of length 1."""

    normalize: bool = False

    @property
    def learnt(self) -> dict[str, Any]:
        return {}

    @property
    def classes(self) -> tuple[str, ...]:
        return ()

    def columns(self, labels: Sequence[Any], size: int) -> dict[str, Column]:
        return {}

    def head(self, config: Any, reader: nn.Module | None = None, style: Style = Style()) -> Pooled:  # noqa: B008
        return Pooled(style.pooling if config.pooling == "pooler" else config.pooling, style.padding, self.normalize)

    def stats(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        return {"weight": batch["weights"].sum()}

    def decode(self, outputs: Mapping[str, np.ndarray], texts: Sequence[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        """Yield the vector of each text, float32 [D]."""
        yield from ({"vector": vector} for vector in outputs["logits"])
