"""A trained run as a folder that others read: what `--mode=export` does."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import models, weights, whole
from research.data.examples import Examples
from research.errors import InputError, nearest
from research.model import Model
from research.params.tree import flatten, merge, unflatten
from research.precision import Precision
from research.weights import card, hub, huggingface, peft

FORMATS = ("huggingface", "peft")
SAID = ("A short text.", "Another one; it goes on for a few words more than the first did.", "Why?")
TOLERANCE = 1e-4


def export(model: Model, checkpoint: weights.Checkpoint, workdir: Path, form: str, output: Path) -> None:
    """Writes the trained `model` of the finished run in `workdir` to the new folder `output`, in one of `FORMATS`.

    "huggingface": the whole model, with deltas merged into it; "peft": the delta and the head. The tokenizer and a model card go with it.
    Raises InputError where the run is not finished, or the format has no place for what was trained. What is written is read back, and
    must give the same logits.
    """
    if form not in FORMATS:
        raise InputError(f"--format={form} is not known; {nearest(form, FORMATS)}")
    if not (workdir / "result.json").exists():
        raise InputError(f"{workdir}: no result.json there; finish the run with --mode=train first")
    style = models.family(checkpoint.config).style(checkpoint.config)
    huggingface.check_pooling(model.config.pooling, style, model.recipe.reader is not None, checkpoint.config["model_type"])
    result, made = whole.read_json(workdir / "result.json"), " ".join(["python -m research.main", *sys.argv[1:]])
    library = "transformers" if form == "huggingface" else "peft"
    described = card.card(result, model.labels, hub.name(checkpoint.source), made, library)
    params = {name: np.asarray(leaf) for name, leaf in flatten(merge(model.trainable, model.frozen)).items()}
    with huggingface.new_folder(output) as part:
        (part / "README.md").write_text(described, encoding="utf8")
        huggingface.copy_tokenizer(checkpoint.folder, part, model.tokenizer, style.padding, model.config.truncation)
        if form == "huggingface":
            _whole(part, model, checkpoint, _merged(model, params))
        else:
            _delta(part, model, checkpoint, params)
        huggingface.check_tokenizer(part, model.tokenizer, _texts(model))


def _merged(model: Model, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parameters of encoder and head, flat, with the deltas merged into the encoder's, the innermost first."""
    encoder = _under("encoder/", params)
    for delta in reversed(model.recipe.deltas):
        encoder = delta.merged(_under(f"delta/{delta.name}/", params), encoder)
    head = {name: leaf for name, leaf in params.items() if name.startswith("head/")}
    return {f"encoder/{name}": np.asarray(leaf) for name, leaf in encoder.items()} | head


def _whole(folder: Path, model: Model, checkpoint: weights.Checkpoint, tensors: dict[str, np.ndarray]) -> None:
    huggingface.write(folder, checkpoint.config, tensors, kind="classifier", labels=model.labels)
    whole, params, _ = weights.load(str(folder), head=True)
    batch = _batch(model)
    _compare(model, batch, np.asarray(whole.apply({"params": params}, batch))[:, :1])


def _delta(folder: Path, model: Model, checkpoint: weights.Checkpoint, params: dict[str, np.ndarray]) -> None:
    deltas, trained = model.recipe.deltas, model.plan.trained
    further = [name for name in trained if not name.startswith(("head/", "delta/"))]
    if len(deltas) != 1 or further:
        what = f"{further[0]} trains too" if further else f"there are {len(deltas)} deltas"
        raise InputError(f"method={model.config.method}: peft's format is for one delta and a head, but {what}; use --format=huggingface")
    (delta,), shape = deltas, model.encoder.config
    own, head = _under(f"delta/{delta.name}/", params), _under("head/", params)
    base = hub.name(checkpoint.source)
    base = str(Path(base).absolute()) if Path(base).is_dir() else base
    peft.write(folder, delta.name, model.config[delta.name].to_dict(), own, head, checkpoint.table, shape, base)
    huggingface.write_config(folder, checkpoint.config, "classifier", model.labels)  # the names of the head's classes
    _, _, own, head = peft.read(folder, checkpoint.table, shape.num_hidden_layers)
    read = {f"delta/{delta.name}/{name}": leaf for name, leaf in own.items()} | {f"head/{name}": leaf for name, leaf in head.items()}
    batch = _batch(model)
    _compare(model, batch, _logits(dataclasses.replace(model, trainable=unflatten(read)), batch))


def _under(prefix: str, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): leaf for name, leaf in params.items() if name.startswith(prefix)}


def _texts(model: Model) -> tuple[str, ...]:
    """A few texts, among them some that hold each of the tokenizer's special tokens in the middle and at the end."""
    return (*SAID, *(f"One{token} more {token}" for token in model.tokenizer.all_special_tokens))


def _batch(model: Model) -> dict[str, np.ndarray]:
    """A few texts, one a row."""
    texts = tuple((text,) * len(model.task.texts) for text in _texts(model))
    tokens = model.tokens(Examples(tuple(map(str, range(len(texts)))), texts, ()))
    length = int(tokens.lengths.max())
    rows = [slice(*tokens.offsets[i : i + 2]) for i in range(len(tokens))]
    padded = lambda array: np.stack([np.pad(array[row], (0, length - len(array[row]))) for row in rows])  # noqa: E731
    batch = weights.padded_batch(padded(tokens.ids), padded(np.ones_like(tokens.ids)), padded(tokens.types))
    return batch | {"positions": batch["positions"] + np.int32(tokens.first_position)}


def _logits(model: Model, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Logits in float32 [n, 1, C]."""
    exact = dataclasses.replace(model, encoder=model.encoder.clone(precision=Precision("float32")))
    return np.asarray(jax.jit(lambda trainable: exact.logits(trainable, exact.frozen, batch))(exact.trainable))


def _compare(model: Model, batch: dict[str, np.ndarray], found: Any) -> None:
    wanted = _logits(model, batch)
    far = float(np.abs(wanted - found).max() / max(1.0, np.abs(wanted).max()))
    if not far <= TOLERANCE:
        raise InputError(f"method={model.config.method}: what was written gives other logits ({far:.1e} off), so it is not kept")
