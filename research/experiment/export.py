"""Export of a trained run to a folder that other libraries load (`--mode=export`)."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research import storage, weights
from research.adapt.adapted_model import AdaptedModel
from research.adapt.base import Delta
from research.adapt.recipe import Recipe
from research.data import pipeline
from research.data.examples import Examples
from research.errors import InputError, nearest
from research.layers.precision import Precision
from research.models import families
from research.models.heads import Style
from research.params.tree import below, flatten, merge, unflatten
from research.weights import card, hub, huggingface, peft, sentence
from research.weights.tables import TABLES

FORMATS = {"huggingface": "transformers", "peft": "peft", "sentence-transformers": "sentence-transformers"}  # format: library that loads it
SAMPLE_TEXTS = ("A short text.", "Another one; it goes on for a few words more than the first did.", "Why?")
TOLERANCE = 1e-4


def has_standard_pooling(pooling: str, style: Style) -> bool:
    """Return whether the family's classifier in `transformers` uses this pooling."""
    return pooling == "pooler" or Style(pooling) == style


def remarks(pooling: str, style: Style, recipe: Recipe, family: str, pools: bool = True) -> tuple[str, ...]:
    """Return a line for the plan if the run cannot be exported as the family's classifier in `transformers`, else nothing.

    Without `pools`, the classifier is one of tokens."""
    if family not in TABLES:
        return ()
    if recipe.reader is not None:
        return (f"export: none; no format has a place for a classifier that reads several states, as method={recipe.name} does",)
    is_standard = not pools or has_standard_pooling(pooling, style)
    unmergeable = [delta.name for delta in recipe.deltas if type(delta).merged is Delta.merged]
    if unmergeable and not pools:
        return (f"export: none; {unmergeable[0]} cannot be merged into the encoder",)
    if unmergeable and is_standard and unmergeable == [name for name in unmergeable if name in peft.TYPES]:
        return (f"export: --format=peft; {unmergeable[0]} cannot be merged into the encoder",)
    if unmergeable:
        instead = "; with --config.pooling=pooler, --format=peft has a place" if unmergeable[0] in peft.TYPES else ""
        return (f"export: none; {unmergeable[0]} cannot be merged into the encoder{instead}",)
    if is_standard:
        return ()
    return (f"export: --format=sentence-transformers; transformers' {family} classifiers have no place for pooling={pooling}",)


def check(form: str, model: AdaptedModel, style: Style, family: str) -> None:
    """Raise InputError if the format `form` cannot hold the classifier."""
    pooling = model.config.pooling
    if family not in TABLES:
        raise InputError(f"model={family} is of a family that transformers does not have; there is nothing to export to")
    if model.recipe.reader is not None:
        raise InputError(f"method={model.recipe.name} reads several states: no format has a place for such a classifier")
    if form != "huggingface" and not model.task.pools:
        raise InputError(f"--format={form} has no place for a head that reads every token; use --format=huggingface")
    is_standard = not model.task.pools or has_standard_pooling(pooling, style)
    if form == "sentence-transformers" and is_standard:
        raise InputError(
            f"pooling={pooling}: a folder of sentence-transformers has no place for the family's own; use --format=huggingface"
        )
    if form != "sentence-transformers" and not is_standard:
        raise InputError(
            f"pooling={pooling}: transformers' {family} classifiers have no place for it; use --format=sentence-transformers, or train "
            "with --config.pooling=pooler"
        )


def export(model: AdaptedModel, checkpoint: weights.Checkpoint, workdir: Path, form: str | None, output: Path) -> str:
    """Write the trained `model` of the finished run in `workdir` to the new folder `output`, and return the format.

    Formats: "huggingface" is the full model with merged deltas; "peft" is the delta and the head; "sentence-transformers" is the full
    model as a Transformer, a pooling and a Dense layer. With None the format is "huggingface" if the family's classifiers support the
    pooling, else "sentence-transformers". The folder also gets the tokenizer and a model card. The written model is loaded again. Raise
    InputError if the run is not finished, the format cannot hold the trained parameters, or the loaded model gives other logits.
    """
    style, family = families.family(checkpoint.config).style(checkpoint.config), checkpoint.config["model_type"]
    is_standard = not model.task.pools or has_standard_pooling(model.config.pooling, style)
    form = form or ("huggingface" if is_standard else "sentence-transformers")
    if form not in FORMATS:
        raise InputError(f"--format={form} is not known; {nearest(form, FORMATS)}")
    if not (workdir / "result.json").exists():
        raise InputError(f"{workdir}: no result.json there; finish the run with --mode=train first")
    check(form, model, style, family)
    result, command = storage.read_json(workdir / "result.json"), " ".join(["python -m research.main", *sys.argv[1:]])
    library = FORMATS[form] if model.task.pools else card.TAGGER
    readme = card.card(result, model.task.classes, hub.name(checkpoint.source), command, library, output.name, len(model.task.texts))
    params = {name: np.asarray(leaf) for name, leaf in flatten(merge(model.trainable, model.frozen)).items()}
    with huggingface.new_folder(output) as folder:
        (folder / "README.md").write_text(readme, encoding="utf8")
        huggingface.copy_tokenizer(checkpoint.folder, folder, model.tokenizer, style.padding, model.config.truncation)
        if form == "peft":
            _delta(folder, model, checkpoint, params)
        else:
            _write_model(folder, model, checkpoint, _merged(model, params), form)
        huggingface.check_tokenizer(folder, model.tokenizer, _texts(model))
    return form


def _merged(model: AdaptedModel, params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the flat parameters of encoder and head, with the deltas merged into the encoder, the innermost delta first."""
    encoder = below(params, "encoder")
    for delta in reversed(model.recipe.deltas):
        encoder = delta.merged(below(params, f"delta/{delta.name}"), encoder)
    head = {name: leaf for name, leaf in params.items() if name.startswith("head/")}
    return {f"encoder/{name}": np.asarray(leaf) for name, leaf in encoder.items()} | head


def _write_model(
    folder: Path, model: AdaptedModel, checkpoint: weights.Checkpoint, tensors: dict[str, np.ndarray], form: str = "huggingface"
) -> None:
    task = model.task
    if form == "huggingface":
        huggingface.write(folder, checkpoint.config, tensors, kind=task.hub.kind, labels=task.classes, problem_type=task.hub.problem_type)
    else:
        parts = [{name: leaf for name, leaf in tensors.items() if name.startswith(f"{part}/")} for part in ("encoder", "head")]
        pooler = {name: leaf for name, leaf in checkpoint.tensors().items() if name.startswith("encoder/pooler/")}
        # The pooler is not used, but the library expects its parameters.
        huggingface.write(folder, checkpoint.config, pooler | parts[0], labels=task.classes, problem_type=task.hub.problem_type)
        sentence.write(folder, model.config.pooling, parts[1], model.config.max_length)
    loaded, params, _ = weights.load(str(folder), head=True)
    batch = _batch(model)
    logits = np.asarray(loaded.apply({"params": params}, batch))
    _compare(model, batch, logits[:, :1] if task.pools else logits)


def _delta(folder: Path, model: AdaptedModel, checkpoint: weights.Checkpoint, params: dict[str, np.ndarray]) -> None:
    deltas, trainable = model.recipe.deltas, model.plan.trained
    further = [name for name in trainable if not name.startswith(("head/", "delta/"))]
    if len(deltas) != 1 or further:
        what = f"{further[0]} trains too" if further else f"there are {len(deltas)} deltas"
        raise InputError(f"method={model.config.method}: peft's format is for one delta and a head, but {what}; use --format=huggingface")
    (delta,), shape = deltas, model.encoder.config
    delta_params, head = below(params, f"delta/{delta.name}"), below(params, "head")
    base = hub.name(checkpoint.source)
    base = str(Path(base).absolute()) if Path(base).is_dir() else base
    peft.write(folder, delta.name, model.config[delta.name].to_dict(), delta_params, head, checkpoint.table, shape, base)
    task = model.task
    huggingface.write_config(folder, checkpoint.config, task.hub.kind, task.classes, task.hub.problem_type)  # the names of the classes
    _, _, delta_params, head = peft.read(folder, checkpoint.table, shape.num_hidden_layers)
    loaded = {f"delta/{delta.name}/{name}": leaf for name, leaf in delta_params.items()} | {
        f"head/{name}": leaf for name, leaf in head.items()
    }
    batch = _batch(model)
    _compare(model, batch, _logits(dataclasses.replace(model, trainable=unflatten(loaded)), batch))


def _texts(model: AdaptedModel) -> tuple[str, ...]:
    """Return a few texts, some of which contain a special token of the tokenizer in the middle and at the end."""
    return (*SAMPLE_TEXTS, *(f"One{token} more {token}" for token in model.tokenizer.all_special_tokens))


def _batch(model: AdaptedModel) -> dict[str, np.ndarray]:
    """Return a padded batch of `_texts`, one example a row."""
    texts = tuple((text,) * len(model.task.texts) for text in _texts(model))
    tokens = pipeline.tokens(model, Examples(tuple(map(str, range(len(texts)))), texts, ()))
    length = int(tokens.lengths.max())
    rows = [slice(*tokens.offsets[i : i + 2]) for i in range(len(tokens))]
    padded = lambda array: np.stack([np.pad(array[row], (0, length - len(array[row]))) for row in rows])  # noqa: E731
    batch = weights.padded_batch(padded(tokens.ids), padded(np.ones_like(tokens.ids)), padded(tokens.types))
    return batch | {"positions": batch["positions"] + np.int32(tokens.first_position)}


def _logits(model: AdaptedModel, batch: dict[str, np.ndarray]) -> np.ndarray:
    """Return the logits of `model`, float32 [n, 1, C] or of tokens [n, L, C], computed in float32."""
    exact = dataclasses.replace(model, encoder=model.encoder.clone(precision=Precision("float32")))
    return np.asarray(jax.jit(lambda trainable: exact.logits(trainable, exact.frozen, batch))(exact.trainable))


def _compare(model: AdaptedModel, batch: dict[str, np.ndarray], logits: Any) -> None:
    expected = _logits(model, batch)
    if not model.task.pools:  # logits in padding have no meaning
        expected, logits = (array[batch["segments"] > 0] for array in (expected, logits))
    difference = float(np.abs(expected - logits).max() / max(1.0, np.abs(expected).max()))
    if not difference <= TOLERANCE:
        raise InputError(f"method={model.config.method}: what was written gives other logits ({difference:.1e} off), so it is not kept")
