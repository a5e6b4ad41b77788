"""Evaluation on every example exactly once, for any shapes of the batches."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from research.data.batches import Batches
from research.errors import InputError
from research.parallel.layouts import Layout
from research.parallel.program import Program
from research.tasks.base import EXAMPLE, WORD


class Evaluation(NamedTuple):
    """The result of an evaluation: `stats`, sums over all examples, float64, and `outputs`, arrays with a row for each example, token or
    word of the split, in order."""

    stats: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]

    def checked(self) -> "Evaluation":
        """Return this evaluation. Raises InputError if an output is not finite."""
        for outputs in self.outputs.values():
            finite = np.isfinite(outputs).reshape(len(outputs), -1).all(-1)
            if not finite.all():
                count = int((~finite).sum())
                raise InputError(f"{count} of {len(outputs)} outputs are not finite: the training diverged, or the weights are damaged")
        return self


def evaluate(program: Program, trainable: Any, frozen: Any, batches: Batches, layout: Layout, per: str = EXAMPLE) -> Evaluation:
    """Return the evaluation of one model, with outputs per example, token or word. Raises InputError if an output is not finite."""
    run = lambda batch: program(trainable, frozen, layout.shard(batch))  # noqa: E731
    fetch = lambda out, sums: ({name: layout.join(x)[None] for name, x in out.items()}, [layout.first(sums)])  # noqa: E731
    (evaluation,) = evaluate_all(run, batches, fetch, per)
    return evaluation.checked()


def evaluate_all(run: Callable[[Any], tuple], batches: Batches, fetch: Callable[[Any, Any], tuple], per: str) -> list[Evaluation]:
    """Evaluate several models on the same batches with one program, and return the evaluation of each.

    `run(batch)` returns outputs and sums on the device. `fetch` converts them to outputs [models, R, E, ...] (or [models, R, L, ...], where
    `per` says so) on the host and a list of sums. Outputs of words without a token are 0.
    """
    outputs, stats = {}, None
    for batch, results in _delayed((batch, run(batch)) for batch in batches.epoch(0)):
        out, sums = fetch(*results)
        sums = [jax.tree.map(lambda x: np.asarray(x, np.float64), one) for one in sums]
        stats = sums if stats is None else [jax.tree.map(np.add, *pair) for pair in zip(stats, sums, strict=True)]
        places, members = batches.members(batch, per)
        for name, values in out.items():
            if name not in outputs:
                empty = np.nan if np.issubdtype(values.dtype, np.floating) and per != WORD else 0
                outputs[name] = np.full((len(values), batches.size(per), *values.shape[3:]), empty, values.dtype)
            outputs[name][:, members] = values[:, places]
    return [Evaluation(one, {name: x[i] for name, x in outputs.items()}) for i, one in enumerate(stats)]


def _delayed(items: Iterable) -> Iterator:
    """Yield the items, each after the next one has been requested, so that the device works while the host handles a result."""
    pending = []
    for item in items:
        pending.append(item)
        if len(pending) > 1:
            yield pending.pop(0)
    yield from pending
