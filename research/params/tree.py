"""Operations on parameter trees: nested dicts of arrays, whose leaves are named by slash paths."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

Tree = dict[str, Any]


def flatten(params: Tree) -> dict[str, Any]:
    """Return a tree as a flat dict, {"encoder": {"norm": {"bias": b}}} -> {"encoder/norm/bias": b}, with sorted names."""
    return dict(sorted(traverse_util.flatten_dict(params, sep="/").items()))


def unflatten(leaves: Mapping[str, Any]) -> Tree:
    """Return the tree of a flat dict of leaves: the inverse of `flatten`."""
    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def is_below(name: str, subtrees: Iterable[str]) -> bool:
    """Return whether a leaf is one of `subtrees` ("head", "encoder/pooler") or below one of them."""
    return any(f"{name}/".startswith(f"{subtree}/") for subtree in subtrees)


def below(leaves: Mapping[str, Any], subtree: str) -> dict[str, Any]:
    """Return the leaves of a flat dict below `subtree`, with names that begin there: "head/bias" is "bias" below "head"."""
    return {name.removeprefix(f"{subtree}/"): leaf for name, leaf in leaves.items() if name.startswith(f"{subtree}/")}


def map_named(function: Callable[[str, Any], Any], params: Tree) -> Tree:
    """Return a tree of the same structure with `function(name, leaf)` at each leaf."""
    return unflatten({name: function(name, leaf) for name, leaf in flatten(params).items()})


def split(params: Tree, names: Iterable[str]) -> tuple[Tree, Tree]:
    """Return two trees: the leaves with the given names, and all other leaves. Raise KeyError for an unknown name."""
    leaves, chosen = flatten(params), set(names)
    if unknown := chosen - leaves.keys():
        raise KeyError(f"no such parameter: {sorted(unknown)}")
    return (
        unflatten({name: leaf for name, leaf in leaves.items() if name in chosen}),
        unflatten({name: leaf for name, leaf in leaves.items() if name not in chosen}),
    )


def merge(one: Tree, other: Tree) -> Tree:
    """Return one tree with the leaves of both: the inverse of `split`. Raise ValueError if both have a leaf of the same name."""
    a, b = flatten(one), flatten(other)
    if both := a.keys() & b.keys():
        raise ValueError(f"in both trees: {sorted(both)}")
    return unflatten(a | b)


def count(params: Tree) -> int:
    """Return the number of scalars in all leaves."""
    return sum(int(np.prod(leaf.shape)) for leaf in flatten(params).values())


def digest(params: Tree) -> str:
    """Return the sha256 hex digest of the names, shapes, dtypes and bytes of all leaves, in the order of sorted names."""
    sha = hashlib.sha256()
    for name, leaf in flatten(params).items():
        array = np.asarray(leaf)
        sha.update(f"{name}:{array.dtype.str}:{array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).view(np.uint8))
    return sha.hexdigest()
