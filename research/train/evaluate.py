"""Evaluation on every example exactly once, for any shapes of the batches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.batches import Batches
from research.errors import InputError
from research.parallel.layouts import Layout
from research.parallel.program import Program


class Evaluation(NamedTuple):
    """The result of an evaluation: `totals`, sums over all examples, float64; `logits` [n, ...] float32 in the order of the examples."""

    totals: dict[str, np.ndarray]
    logits: np.ndarray

    def checked(self) -> "Evaluation":
        """Return this evaluation. Raises InputError if a logit is not finite."""
        finite = np.isfinite(self.logits).reshape(len(self.logits), -1).all(-1)
        if not finite.all():
            count = int((~finite).sum())
            raise InputError(f"{count} of {len(self.logits)} examples have no finite prediction: training diverged")
        return self


def evaluate(program: Program, trainable: Any, frozen: Any, batches: Batches, layout: Layout) -> Evaluation:
    """Return the evaluation of one model. Raises InputError if a logit is not finite."""
    run = lambda batch: program(trainable, frozen, layout.shard(batch))  # noqa: E731
    (evaluation,) = evaluate_all(run, batches, lambda out, sums: (layout.join(out)[None], [layout.first(sums)]))
    return evaluation.checked()


def evaluate_all(run: Callable[[Any], tuple], batches: Batches, fetch: Callable[[Any, Any], tuple]) -> list[Evaluation]:
    """Evaluate several models on the same batches with one program, and return the evaluation of each.

    `run(batch)` returns logits and sums on the device. `fetch` converts them to logits [models, R, E, ...] on the host and a list of sums.
    """
    logits, totals = None, None
    for batch, results in _delayed((batch, run(batch)) for batch in batches.epoch(0)):
        out, sums = fetch(*results)
        sums = [jax.tree.map(lambda x: np.asarray(x, np.float64), one) for one in sums]
        totals = sums if totals is None else [jax.tree.map(np.add, *pair) for pair in zip(totals, sums, strict=True)]
        if logits is None:
            logits = np.full((len(out), len(batches.tokens), *out.shape[3:]), np.nan, np.float32)
        occupied = batch["weights"] > 0
        logits[:, batch["examples"][occupied]] = out[:, occupied]
    return [Evaluation(*pair) for pair in zip(totals, logits, strict=True)]


def _delayed(items: Iterable) -> Iterator:
    """Yield the items, each after the next one has been requested, so that the device works while the host handles a result."""
    pending = []
    for item in items:
        pending.append(item)
        if len(pending) > 1:
            yield pending.pop(0)
    yield from pending
