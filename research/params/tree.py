"""Parameters by name: a nested dict of arrays seen as a flat map from slash paths to leaves, and cut in two."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

Tree = dict[str, Any]


def flatten(params: Tree) -> dict[str, Any]:
    """{"encoder": {"norm": {"bias": b}}} -> {"encoder/norm/bias": b}, names sorted."""
    return dict(sorted(traverse_util.flatten_dict(params, sep="/").items()))


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """The inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def map_named(function: Callable[[str, Any], Any], params: Tree) -> Tree:
    """A tree of the same shape with `function(name, leaf)` at each leaf."""
    return unflatten({name: function(name, leaf) for name, leaf in flatten(params).items()})


def split(params: Tree, names: Iterable[str]) -> tuple[Tree, Tree]:
    """The leaves called `names`, and all others: two trees that share no leaf. Raises KeyError on a name that is not there."""
    leaves, chosen = flatten(params), set(names)
    if unknown := chosen - leaves.keys():
        raise KeyError(f"no such parameter: {sorted(unknown)}")
    return (
        unflatten({name: leaf for name, leaf in leaves.items() if name in chosen}),
        unflatten({name: leaf for name, leaf in leaves.items() if name not in chosen}),
    )


def merge(one: Tree, other: Tree) -> Tree:
    """The inverse of `split`. Raises ValueError where both trees have a leaf of the same name."""
    a, b = flatten(one), flatten(other)
    if both := a.keys() & b.keys():
        raise ValueError(f"in both trees: {sorted(both)}")
    return unflatten(a | b)


def count(params: Tree) -> int:
    """Number of scalars in all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in flatten(params).values())


def digest(params: Tree) -> str:
    """sha256 over names, shapes, dtypes and bytes of all leaves, names sorted: equal digests are equal parameters."""
    sha = hashlib.sha256()
    for name, leaf in flatten(params).items():
        array = np.asarray(leaf)
        sha.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8))
    return sha.hexdigest()
