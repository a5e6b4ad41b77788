"""The contents of `result.json` and of prediction files."""

import json
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from research import storage
from research.adapt import adapted_model
from research.data.examples import Examples
from research.experiment import provenance
from research.experiment.experiment import Experiment
from research.params.tree import count, merge
from research.train.checkpoint import Checkpoints
from research.train.evaluate import Evaluation


def write_lines(path: str | Path, rows: Iterable[dict]) -> None:
    """Write `rows` to the file `path` as JSON lines, atomically."""
    storage.write_text(Path(path), "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def prediction_rows(examples: Examples, predictions: Iterable[dict[str, Any]]) -> list[dict]:
    """Return one dict an example: its id, texts, label (if there is one) and the entries of its prediction."""
    rows = []
    for i, prediction in enumerate(predictions):
        names = ("text",) if len(examples.texts[i]) == 1 else ("text_a", "text_b")
        row = {"id": examples.ids[i], **dict(zip(names, examples.texts[i], strict=True))}
        rows.append(row | ({"label": examples.labels[i]} if examples.labels else {}) | prediction)
    return rows


def describe(
    experiment: Experiment,
    model: adapted_model.AdaptedModel,
    evaluations: Mapping[str, Evaluation],
    speed: dict,
    best: Checkpoints,
    sha256: str,
    fleet: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the contents of `result.json`.

    `model` holds the parameters of the checkpoint with the best dev metric. `sha256` is over all of them, frozen ones included.
    `fleet` names the runs that were trained together with this one.
    """
    params = merge(model.trainable, model.frozen)
    return {
        "status": "finished",
        "config": experiment.model.config.to_dict(),
        "seed": experiment.config.seed,
        "selected_step": best.step,
        "selection": model.task.selection,
        "metrics": {
            split: model.task.metrics(*evaluation, experiment.data.splits[split].labels) for split, evaluation in evaluations.items()
        },
        **model.task.report(
            {split: evaluation.stats for split, evaluation in evaluations.items()},
            {split: evaluation.outputs for split, evaluation in evaluations.items()},
            {split: experiment.data.splits[split].labels for split in evaluations},
        ),
        "params": {
            "total": count(params),
            "trainable": count(model.trainable),
            "checkpoint_bytes": best.bytes(),
            "sha256": sha256,
        },
        "speed": speed,
        "weights": {
            "source": experiment.config.weights.source or experiment.config.model,
            "sha256": model.weights_sha256,
        },
        "data": {
            "source": experiment.data.source,
            "fingerprint": experiment.data.fingerprint,
            "raw_fingerprint": experiment.data.raw_fingerprint,
            "sizes": {split: len(examples) for split, examples in experiment.data.splits.items()},
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
