"""Replacing a model's parameters by named tensors, with a check that the names and shapes match exactly."""

from typing import Any

import numpy as np

from research.errors import InputError
from research.params.tree import flatten, is_below, unflatten
from research.weights.name_map import shortened


def graft(
    params: dict[str, Any],
    tensors: dict[str, np.ndarray],
    *,
    allow_missing: tuple[str, ...] = (),
    allow_left_over: tuple[str, ...] = (),
    source: str = "weights",
) -> dict[str, Any]:
    """Return `params` (nested; arrays or ShapeDtypeStructs) with each leaf replaced by the tensor of its "/" name, in the leaf's dtype.

    `allow_missing` and `allow_left_over` are subtrees such as "head" or "encoder/pooler". Leaves under `allow_missing` may lack a tensor
    and then keep their value. Tensors under `allow_left_over` may lack a leaf and are then dropped. Raises one InputError that lists all
    other missing, left over and misshapen names, and begins with `source`.
    """
    flat = flatten(params)
    missing = [name for name in flat if name not in tensors and not is_below(name, allow_missing)]
    left_over = [name for name in tensors if name not in flat and not is_below(name, allow_left_over)]
    misshapen = [
        f"{name} (file {tuple(tensors[name].shape)}, model {tuple(leaf.shape)})"
        for name, leaf in flat.items()
        if name in tensors and tensors[name].shape != leaf.shape
    ]
    faults = {"missing": missing, "left over": left_over, "misshapen": misshapen}
    if any(faults.values()):
        lists = "; ".join(f"{len(names)} {fault}: {shortened(names)}" for fault, names in faults.items() if names)
        raise InputError(f"{source} and model do not fit: {lists}")
    grafted = {name: np.asarray(tensors[name], leaf.dtype) if name in tensors else leaf for name, leaf in flat.items()}
    return unflatten(grafted)
