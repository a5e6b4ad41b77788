"""Exact evaluation: every example once, whatever the shapes of the batches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.batches import Batches
from research.errors import InputError
from research.parallel.layouts import Layout
from research.parallel.program import Program


class Evaluation(NamedTuple):
    """`totals`: sums over all examples, float64; `logits` [n, ...] float32 in the examples' order."""

    totals: dict[str, np.ndarray]
    logits: np.ndarray

    def checked(self) -> "Evaluation":
        """Return this, or raise InputError where a prediction is not finite."""
        if np.isnan(self.logits).any():
            bad = int(np.isnan(self.logits).reshape(len(self.logits), -1).any(-1).sum())
            raise InputError(f"{bad} of {len(self.logits)} examples have no finite prediction: training diverged")
        return self


def evaluate(program: Program, trainable: Any, frozen: Any, batches: Batches, layout: Layout) -> Evaluation:
    """Evaluate one model. Raises InputError where a prediction is not finite."""
    run = lambda batch: program(trainable, frozen, layout.shard(batch))  # noqa: E731
    (evaluation,) = evaluate_all(run, batches, lambda out, sums: (layout.join(out)[None], [layout.first(sums)]))
    return evaluation.checked()


def evaluate_all(run: Callable[[Any], tuple], batches: Batches, fetch: Callable[[Any, Any], tuple]) -> list[Evaluation]:
    """Evaluate models on the same batches by one program, and return an `Evaluation` for each.

    `run(batch)` gives logits and sums on the device; `fetch` makes of them logits [models, R, E, ...] on the host and a list of sums.
    """
    logits, totals = None, None
    for batch, results in _one_late((batch, run(batch)) for batch in batches.epoch(0)):
        out, sums = fetch(*results)
        sums = [jax.tree.map(lambda x: np.asarray(x, np.float64), one) for one in sums]
        totals = sums if totals is None else [jax.tree.map(np.add, *pair) for pair in zip(totals, sums, strict=True)]
        if logits is None:
            logits = np.full((len(out), len(batches.tokens), *out.shape[3:]), np.nan, np.float32)
        there = batch["weights"] > 0
        logits[:, batch["examples"][there]] = out[:, there]
    return [Evaluation(*pair) for pair in zip(totals, logits, strict=True)]


def _one_late(items: Iterable) -> Iterator:
    """Yield the same items, each after the next one has been asked for: the device works while the host takes the one before."""
    late = []
    for item in items:
        late.append(item)
        if len(late) > 1:
            yield late.pop(0)
    yield from late
