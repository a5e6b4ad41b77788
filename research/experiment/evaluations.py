"""Evaluation of a trained run on its own or other data: metrics, predictions and the folder that they are written to."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from research import storage
from research.adapt.adapted_model import AdaptedModel
from research.data import pipeline
from research.data.describe import Lengths, truncation
from research.data.examples import Examples
from research.experiment import workdir as workdirs
from research.experiment.results import prediction_rows, write_lines
from research.parallel import layouts
from research.train import trainers
from research.train.evaluate import Evaluation, evaluate


def compare(run: Path, fingerprint: str, console: Console) -> None:
    """Print a warning where `fingerprint` is not that of the data of the finished run in the folder `run`."""
    if not (run / "result.json").exists():
        return
    before = storage.read_json(run / "result.json", "data")["data"]["fingerprint"]
    if before != fingerprint:
        console.print(
            f"these are other data than the run's: their fingerprint is {fingerprint[:12]}, that of the run's data was {before[:12]}; "
            "the scores below are not those of result.json"
        )


def measure(
    model: AdaptedModel, splits: Mapping[str, Examples], data: Mapping[str, str], run: Path, config: ConfigDict, console: Console
) -> dict[str, dict[str, float]]:
    """Evaluate a trained model on each of `splits`, write metrics and predictions to a folder in `run`/evaluations, and return the metrics.

    The folder's name holds a hash of the config and of `data` (`source` and `fingerprint` of the examples), so that different evaluations
    have different folders. Raise InputError for an example whose label is not a class of the model.
    """
    for examples in splits.values():
        for id, label in zip(examples.ids, examples.labels, strict=True):
            model.task.check(label, f"{data['source']}: {id}")
    layout = layouts.layout(config.parallel)
    digest = hashlib.sha256(json.dumps([dict(data), config.to_dict()], sort_keys=True).encode()).hexdigest()
    folder = run / "evaluations" / f"{workdirs.safe(Path(data['source']).stem)}-{digest[:8]}"
    batches = {split: pipeline.batches(model, examples, layout.multiple) for split, examples in splits.items()}
    console.print(truncation({split: Lengths.of(split_batches.tokens) for split, split_batches in batches.items()}, config.max_length))
    metrics = {}
    for split, examples in splits.items():
        evaluation = evaluate(
            trainers.eval_program(model, layout),
            *map(layout.replicate, (model.trainable, model.frozen)),
            batches[split],
            layout,
            model.task.outputs_per,
        )
        write_predictions(model, examples, evaluation, folder / f"{split}.jsonl")
        metrics[split] = model.task.metrics(*evaluation, examples.labels)
    sizes = {split: len(examples) for split, examples in splits.items()}
    storage.write_json(
        folder / "scores.json", {"metrics": metrics, "data": {**data, "sizes": sizes}, "config": config.to_dict(), "argv": sys.argv}
    )
    console.print(f"scores and predictions are in {folder}")
    return metrics


def write_predictions(model: AdaptedModel, examples: Examples, evaluation: Evaluation, path: Path) -> None:
    """Write the predictions of `model` for `examples` to the file `path` as JSON lines."""
    write_lines(path, prediction_rows(examples, model.task.decode(evaluation.outputs, examples.texts)))
