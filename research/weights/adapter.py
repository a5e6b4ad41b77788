"""Initialisation from an adapter that was trained before, by this project or by `peft`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.errors import InputError
from research.params.tree import flatten, unflatten
from research.weights import classes, peft
from research.weights.graft import graft as graft_tensors
from research.weights.reader import read_object

FIELD = "weights.adapter"


def has_head(folder: str) -> bool:
    """Return whether the adapter has a classifier, judged by its tensor names. Raises InputError where it cannot be read."""
    return any(not peft.is_delta(name) for name in peft.tensors(Path(folder)))


def graft(params: dict[str, Any], checkpoint: Any, config: Any, labels: Sequence[str], numbered: Sequence[str] = ()) -> dict[str, Any]:
    """Return `params` with the parameters of the adapter (peft's format) in `config.weights.adapter`: its delta and, if present, its head.

    The head's classes are put in the order of `labels`; `numbered` are the classes of a task that fixes their order. With
    `config.weights.head`, the adapter may contain only some layers of the head, and the others keep the checkpoint's parameters. Raises
    InputError where the adapter's method, options or modules are not those of the config's method, where its classes are not the task's,
    or where it cannot be read.
    """
    if not config.weights.adapter:
        return params
    folder = Path(config.weights.adapter)
    name, options, delta_params, head = peft.read(folder, checkpoint.table, _layers(params))
    if name not in params.get("delta", {}):
        raise InputError(f"{folder} is an adapter of method={name}, but the config has method={config.method}; use --config.method={name}")
    for option, value in options.items():
        if config[name][option] != value:
            raise InputError(f"{folder} was trained with {name}.{option}={value}; use --config.{name}.{option}={value}")
    head = {f"head/{leaf}": array for leaf, array in head.items()}
    if size := classes.outputs(head):
        head = classes.in_order(head, _head_config(folder, checkpoint, size), labels, numbered, str(folder), FIELD)
    tensors = {f"delta/{name}/{leaf}": array for leaf, array in delta_params.items()} | head
    parts = {"delta": {name: params["delta"][name]}} | ({"head": params["head"]} if head else {})
    tensors = {leaf: np.asarray(array, np.float32) for leaf, array in tensors.items()}
    grafted = graft_tensors(parts, tensors, allow_missing=("head",) if config.weights.head else (), source=str(folder))
    return unflatten(flatten(params) | flatten(grafted))


def labels(folder: Path, checkpoint: Any) -> tuple[str, ...]:
    """Return the class names of an adapter's head in the order of its outputs, () without a head. Raises InputError as `graft` does."""
    head = peft.read(folder, checkpoint.table, _layers(checkpoint.tensors()))[3]
    size = classes.outputs({f"head/{leaf}": array for leaf, array in head.items()})
    return classes.names(_head_config(folder, checkpoint, size), size, str(folder)) if size else ()


def _layers(params: Mapping[str, Any]) -> int:
    names = params["encoder"] if "encoder" in params else {name.split("/")[1] for name in params if name.startswith("encoder/")}
    return sum(name.startswith("layer_") for name in names)


def _head_config(folder: Path, checkpoint: Any, size: int) -> Mapping[str, Any]:
    """Return the `config.json` that describes a head of `size` outputs: the one beside the adapter, else the checkpoint's.

    The checkpoint's class names are left out where their number is not `size`.
    """
    if (folder / "config.json").is_file():
        return read_object(folder / "config.json")
    config = checkpoint.config
    fits = size in (config.get("num_labels"), len(config.get("id2label") or ()))
    return config if fits else {name: value for name, value in config.items() if name not in ("id2label", "num_labels")}
