"""Beginning with an adapter that was trained before, here or by `peft`."""

from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from research.errors import InputError
from research.weights import peft
from research.weights.graft import graft as grafted
from research.weights.read import read_object


def has_head(folder: str) -> bool:
    """Whether the adapter was trained with a classifier. Raises InputError where its config cannot be read."""
    return read_object(Path(folder) / peft.CONFIG).get("task_type") == peft.CLASSIFIER


def graft(folder: Path, params: dict[str, Any], checkpoint: Any, config: Any) -> dict[str, Any]:
    """`params` with the delta, and the head where there is one, of an adapter in peft's format.

    Raises InputError where the adapter is another than the config's method adds, in kind, options or places, or cannot be read.
    """
    layers = len([name for name in params["encoder"] if name.startswith("layer_")])
    name, options, own, head = peft.read(folder, checkpoint.table, layers)
    if name not in params.get("delta", {}):
        raise InputError(f"{folder} is an adapter of method={name}, but the config has method={config.method}; use --config.method={name}")
    for option, value in options.items():
        if config[name][option] != value:
            raise InputError(f"{folder} was trained with {name}.{option}={value}; use --config.{name}.{option}={value}")
    tensors = {f"delta/{name}/{leaf}": array for leaf, array in own.items()} | {f"head/{leaf}": array for leaf, array in head.items()}
    parts = {"delta": {name: params["delta"][name]}} | ({"head": params["head"]} if head else {})
    found = grafted(parts, {leaf: np.asarray(array, np.float32) for leaf, array in tensors.items()}, source=str(folder))
    return unflatten_dict(flatten_dict(params) | flatten_dict(found))
