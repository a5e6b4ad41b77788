"""Exact evaluation: every example once, whatever the batch shapes; and predictions to a file."""

from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from research.data.batches import Batches
from research.errors import InputError
from research.parallel.layouts import Layout
from research.parallel.program import Program


def evaluate(program: Program, trainable: Any, frozen: Any, batches: Batches, layout: Layout) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Totals over all examples (float64 sums) and the logits [n, ...] float32 in the examples' order."""
    logits, totals = None, None
    for batch, (out, sums) in _one_late((batch, program(trainable, frozen, layout.shard_same(batch))) for batch in batches.epoch(0)):
        out, sums = layout.join(out), jax.tree.map(lambda x: np.asarray(x, np.float64), layout.first(sums))
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
        if logits is None:
            logits = np.full((len(batches.tokens), *out.shape[2:]), np.nan, np.float32)
        there = batch["weights"] > 0
        logits[batch["examples"][there]] = out[there]
    if np.isnan(logits).any():
        raise InputError(f"{int(np.isnan(logits).any(-1).sum())} of {len(logits)} examples have no finite prediction: training diverged")
    return totals, logits


def _one_late(items: Iterable) -> Iterator:
    """The same items, each after the next one has been asked for: the device works while the host takes the one before."""
    late = []
    for item in items:
        late.append(item)
        if len(late) > 1:
            yield late.pop(0)
    yield from late
