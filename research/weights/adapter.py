"""Beginning with an adapter that was trained before, here or by `peft`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research.errors import InputError
from research.weights import classes, peft
from research.weights.graft import graft as grafted
from research.weights.reader import read_object

FIELD = "weights.adapter"


def has_head(folder: str) -> bool:
    """Return whether the adapter was trained with a classifier, by its tensors. Raises InputError where it cannot be read."""
    return any(not peft.is_delta(name) for name in peft.tensors(Path(folder)))


def graft(params: dict[str, Any], checkpoint: Any, config: Any, labels: Sequence[str], numbered: Sequence[str] = ()) -> dict[str, Any]:
    """Return `params` with the delta, and the head where there is one, of the adapter in peft's format that `config.weights.adapter` names.

    The head's classes come in the order of `labels`; `numbered` are the classes of a task that fixes their order. Of a head of several
    layers the adapter may have some, where the others are the checkpoint's own (`weights.head`). Raises InputError where the adapter is
    another than the config's method adds, in kind, options or places, where its classes are not the task's, or it cannot be read.
    """
    if not config.weights.adapter:
        return params
    folder = Path(config.weights.adapter)
    name, options, own, head = peft.read(folder, checkpoint.table, _layers(params))
    if name not in params.get("delta", {}):
        raise InputError(f"{folder} is an adapter of method={name}, but the config has method={config.method}; use --config.method={name}")
    for option, value in options.items():
        if config[name][option] != value:
            raise InputError(f"{folder} was trained with {name}.{option}={value}; use --config.{name}.{option}={value}")
    head = {f"head/{leaf}": array for leaf, array in head.items()}
    if size := classes.outputs(head):
        head = classes.in_order(head, _described(folder, checkpoint, size), labels, numbered, str(folder), FIELD)
    tensors = {f"delta/{name}/{leaf}": array for leaf, array in own.items()} | head
    parts = {"delta": {name: params["delta"][name]}} | ({"head": params["head"]} if head else {})
    tensors = {leaf: np.asarray(array, np.float32) for leaf, array in tensors.items()}
    found = grafted(parts, tensors, allow_missing=("head",) if config.weights.head else (), source=str(folder))
    return unflatten_dict(flatten_dict(params) | flatten_dict(found))


def labels(folder: Path, checkpoint: Any) -> tuple[str, ...]:
    """Return what the classes of an adapter's head are called, in order; () where it has no head. Raises InputError as `graft` does."""
    head = peft.read(folder, checkpoint.table, _layers(checkpoint.tensors()))[3]
    size = classes.outputs({f"head/{leaf}": array for leaf, array in head.items()})
    return classes.names(_described(folder, checkpoint, size), size, str(folder)) if size else ()


def _layers(params: Mapping[str, Any]) -> int:
    names = params["encoder"] if "encoder" in params else {name.split("/")[1] for name in params if name.startswith("encoder/")}
    return sum(name.startswith("layer_") for name in names)


def _described(folder: Path, checkpoint: Any, size: int) -> Mapping[str, Any]:
    """Return the `config.json` that describes a head of `size` outputs: the one beside the adapter, else the checkpoint's, without its
    names where these are of another head."""
    if (folder / "config.json").is_file():
        return read_object(folder / "config.json")
    theirs = checkpoint.config
    fits = size in (theirs.get("num_labels"), len(theirs.get("id2label") or ()))
    return theirs if fits else {name: value for name, value in theirs.items() if name not in ("id2label", "num_labels")}
