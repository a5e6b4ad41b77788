"""Embeddings of texts: the pooled vectors of a pretrained encoder, or of the encoder of a finished run."""

import dataclasses
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from research import storage, weights
from research.adapt.adapted_model import AdaptedModel
from research.config import fields
from research.data.inputs import stream_inputs
from research.errors import InputError, nearest
from research.experiment import initialize, predict
from research.parallel import layouts
from research.tasks.base import Task
from research.tasks.classification import Classification
from research.tasks.embedding import Embedding

MODULES = ("Transformer", "Pooling", "Normalize")  # those of sentence-transformers that embedding supports


def embed(model: AdaptedModel, source: str, output: Path, console: Console) -> int:
    """Write the vectors of the texts in the file `source` ("-": standard input) to `output`: float32 [n, D], in NumPy's format.

    `model` is from `embedder`. Return n. Raise InputError where `source` cannot be read.
    """
    rows = predict.stream(model, layouts.layout(model.config.parallel), stream_inputs(source, model.task), console)
    vectors = np.stack([row["vector"] for row in rows]).astype(np.float32)
    with storage.atomic_write(output) as part, part.open("wb") as file:
        np.save(file, vectors)
    return len(vectors)


def check_output(path: str | None) -> Path:
    """Return the file for the vectors. Raise InputError unless its name ends in .npy and its folder exists."""
    if not path or Path(path).suffix != ".npy":
        raise InputError(f"--mode=embed needs --output=FILE.npy{f', not {path}' if path else ''}")
    predict.check_folder(path)
    return Path(path)


def pretrained(config: ConfigDict) -> AdaptedModel:
    """Return the model of `config` with pretrained weights and a new head. Raise InputError where the folder of the weights says that
    vectors are made by a pooling or a module that does not exist here."""
    config = fields.copied(config, {"method": "full", "weights.head": False, "weights.adapter": ""})
    _task(config)
    return initialize.build_model(config, Classification("embedding", labels=("0", "1")))


def embedder(model: AdaptedModel) -> AdaptedModel:
    """Return `model` with its pooling in place of its head, so that its logits are the vectors of texts. Raise InputError for a model whose
    head reads several layers."""
    if model.recipe.reader is not None:
        raise InputError(f"method={model.config.method} trains a head that reads several layers, which has no vector; use another run")
    task = _task(model.config, model.words)
    return dataclasses.replace(model, task=task, head=task.head(model.config, None, model.head.style))


def _task(config: ConfigDict, words: tuple[str, ...] = ()) -> Task:
    """Return the task of embedding texts. Raise InputError for a folder of weights whose vectors cannot be computed here."""
    modules = weights.begin(config, words).modules
    if modules is None:
        return Embedding("embedding")
    if config.pooling == fields.AUTO and not modules.pooling:
        raise InputError(f"{modules.file}: the pooling {' + '.join(modules.poolings)} does not exist here; choose one by --config.pooling=")
    if unknown := [kind for kind in modules.kinds if kind not in MODULES]:
        raise InputError(f"modules.json: a module {unknown[0]} cannot be computed here; {nearest(unknown[0], MODULES)}")
    return Embedding("embedding", normalize="Normalize" in modules.kinds)
