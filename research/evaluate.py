"""Exact evaluation: every example once, whatever the batch shapes; and predictions to a file."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.data.batches import Batches
from research.parallel import Layout, Program


def evaluate(program: Program, trainable: Any, frozen: Any, batches: Batches, layout: Layout) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Totals over all examples (float64 sums) and the logits [n, ...] float32 in the examples' order."""
    totals, found, logits = None, 0, None
    for batch in batches.epoch(0):
        out, sums = program(trainable, frozen, layout.shard(batch))
        out, sums = layout.join(out), jax.tree.map(lambda x: np.asarray(x, np.float64), layout.first(sums))
        totals = sums if totals is None else jax.tree.map(np.add, totals, sums)
        there = batch["weights"] > 0
        if logits is None:
            logits = np.zeros((len(batches.tokens), *out.shape[2:]), np.float32)
        logits[batch["examples"][there]] = out[there]
        found += int(there.sum())
    if found != len(batches.tokens):
        raise AssertionError(f"evaluated {found} of {len(batches.tokens)} examples")
    return totals, logits


def write_lines(path: str | Path, rows: Iterable[dict]) -> None:
    """JSON lines, atomically: the file is whole or not there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    os.replace(part, path)


def prediction_rows(examples, logits: np.ndarray, predictions: Callable, labels) -> list[dict]:
    """One dict an example: id, its text fields, its label where it has one, prediction, probabilities."""
    rows = []
    for i, said in enumerate(predictions(logits, labels)):
        names = ("text",) if len(examples.texts[i]) == 1 else ("text_a", "text_b")
        row = {"id": examples.ids[i], **dict(zip(names, examples.texts[i], strict=True))}
        rows.append(row | ({"label": examples.labels[i]} if examples.labels else {}) | said)
    return rows
