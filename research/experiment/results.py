"""The contents of `result.json` and of prediction files."""

import json
import platform
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import storage
from research.adapt import adapted_model
from research.experiment import experiment, provenance
from research.params.tree import count, merge
from research.train.checkpoint import Checkpoints


def write_lines(path: str | Path, rows: Iterable[dict]) -> None:
    """JSON lines, atomically: the file is whole or not there."""
    storage.write_text(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def prediction_rows(examples, logits: np.ndarray, predictions: Callable, labels) -> list[dict]:
    """One dict an example: id, its text fields, its label where it has one, prediction, probabilities."""
    rows = []
    for i, said in enumerate(predictions(logits, labels)):
        names = ("text",) if len(examples.texts[i]) == 1 else ("text_a", "text_b")
        row = {"id": examples.ids[i], **dict(zip(names, examples.texts[i], strict=True))}
        rows.append(row | ({"label": examples.labels[i]} if examples.labels else {}) | said)
    return rows


def describe(
    e: experiment.Experiment,
    kept: adapted_model.AdaptedModel,
    totals: dict,
    speed: dict,
    best: Checkpoints,
    sha256: str,
    fleet: Sequence[str] = (),
) -> dict[str, Any]:
    """The contents of `result.json`. `sha256` is over the parameters that were kept and tested, frozen ones included."""
    params = merge(kept.trainable, kept.frozen)
    return {
        "status": "finished",
        "config": e.model.config.to_dict(),
        "seed": e.config.seed,
        "selected_step": best.step,
        "selection": {"split": "dev", "metric": kept.task.metric, "positive": kept.positive},
        "metrics": {split: kept.scores(sums) for split, sums in totals.items()},
        "labels": list(kept.labels),
        "classes": {split: kept.kind.by_class(sums, kept.labels) for split, sums in totals.items()},
        "confusion": {split: sums["confusion"].astype(int).tolist() for split, sums in totals.items()},
        "params": {
            "total": count(params),
            "trainable": count(kept.trainable),
            "checkpoint_bytes": best.bytes(),
            "sha256": sha256,
        },
        "speed": speed,
        "weights": {
            "source": e.config.weights.source or e.config.model,
            "sha256": kept.weights_sha256,
        },
        "data": {
            "source": e.data.source,
            "fingerprint": e.data.fingerprint,
            "raw_fingerprint": e.data.raw_fingerprint,
            "sizes": {split: len(examples) for split, examples in e.data.splits.items()},
        },
        "environment": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "commit": provenance.commit(),
            "devices": [str(device.device_kind) for device in jax.devices()],
            "argv": sys.argv,
            "fleet": list(fleet),
        },
    }
