"""Checkpoints by orbax: what trains, the optimizer's state, the data position and metadata, as separate items.

`latest` serves to go on, `best` is what the run keeps: each array under its name. A step is written beside its place and renamed, so a
half-written one is never taken for whole. Frozen parameters are not saved: they come from where they came from.
"""

import functools
import re
import shutil
import tempfile
import weakref
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from research.errors import InputError
from research.params.tree import Tree

CHECKSUMS = "checksums"  # the name under which the metadata hold them
PLAIN = re.compile(r"[A-Za-z0-9_./+=,@-]+")
SMALL = 2**16  # elements: an array takes orbax a millisecond, be it ever so small, so those of `latest` up to here go together


class Checkpoints:
    """The newest checkpoint of one kind (`latest` or `best`) in a run's `checkpoints/`."""

    def __init__(self, folder: Path, kind: str):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
        self._trees = ("trainable", "opt_state") if kind == "latest" else ("trainable",)
        handlers = {name: ocp.StandardCheckpointHandler() for name in self._trees}
        handlers |= {name: ocp.JsonCheckpointHandler() for name in ("data", "meta")}
        self.folder = folder / kind
        make = functools.partial(ocp.CheckpointManager, self._plain_path(), options=options, item_handlers=handlers)
        self._manager = self._read(make)

    @property
    def step(self) -> int | None:
        """The step of the checkpoint, None where there is none."""
        return self._manager.latest_step()

    def save(self, state: Any, data: dict[str, int], meta: dict[str, Any]) -> None:
        """Saves the state (one device's copy) with the data position and JSON-able metadata, and drops the one before.

        `best` has no use for the optimizer's state.
        """
        step = int(state.step)
        if self.step == step:
            return
        trees = {name: jax.tree.map(np.asarray, getattr(state, name)) for name in self._trees}
        if self.folder.name == "latest":
            trees = {name: _packed(tree) for name, tree in trees.items()}
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        meta = meta | {CHECKSUMS: {name: _checksum(tree) for name, tree in trees.items()}}
        self._manager.save(step, args=ocp.args.Composite(**items, data=ocp.args.JsonSave(data), meta=ocp.args.JsonSave(meta)))

    def restore(self, like: Any) -> Any:
        """The state that `latest` holds; `like` gives shapes and dtypes, and the structure of the optimizer's state.

        Raises InputError where the state there is of another structure."""
        trees = {"trainable": like.trainable, "opt_state": like.opt_state}
        wanted = {name: _packed(_zeros(tree)) for name, tree in trees.items()}
        there = self._read(lambda: {name: self._manager.item_metadata(self.step)[name].keys() for name in trees})
        if any(wanted[name].keys() != there[name] for name in trees):
            raise InputError(f"{self.folder}: saved by another version, there is no going on from it; give another --workdir")
        found = self._restore(**{name: ocp.args.StandardRestore(packed) for name, packed in wanted.items()})
        whole = {name: _unpacked(found[name], tree) for name, tree in trees.items()}
        return like.replace(step=np.asarray(self.step, np.int32), **whole)

    def restore_trainable(self, like: Tree) -> Tree:
        """What trains alone, in the shapes and dtypes of `like`."""
        return self._restore(trainable=ocp.args.StandardRestore(_zeros(like))).trainable

    def meta(self) -> dict[str, Any]:
        """The metadata alone."""
        return {name: value for name, value in self._meta().items() if name != CHECKSUMS}

    def _meta(self) -> dict[str, Any]:
        return self._restore(meta=ocp.args.JsonRestore()).meta

    def data(self) -> dict[str, int]:
        """The data position alone."""
        return self._restore(data=ocp.args.JsonRestore()).data

    def bytes(self) -> int:
        """Bytes on disk of what trains."""
        root = self.folder / str(self.step) / "trainable"
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())

    def _plain_path(self) -> Path:
        """Return the full path of the folder, or that of a link to it, for as long as this object lives, where orbax would misread it.

        orbax takes the path for a pattern (`runs/lr[1e-3]`) and for text.
        """
        path = self.folder.absolute()
        if PLAIN.fullmatch(str(path)):
            return path
        path.mkdir(parents=True, exist_ok=True)
        place = Path(tempfile.mkdtemp(prefix="checkpoints-"))
        weakref.finalize(self, shutil.rmtree, place, ignore_errors=True)
        (place / path.name).symlink_to(path)
        return place / path.name

    def _restore(self, **items: Any) -> Any:
        """Read items of the checkpoint. Raises InputError where one is damaged: arrays are compared with their checksums."""
        found = self._read(lambda: self._manager.restore(self.step, args=ocp.args.Composite(**items)))
        for name in items:
            if name in ("data", "meta") and not isinstance(found[name], dict):
                raise self._damaged(f"{name} is not a JSON object")
        arrays = [name for name in items if name in self._trees]
        expected = self._meta().get(CHECKSUMS, {}) if arrays else {}  # versions before wrote none
        for name in arrays:
            if name in expected and expected[name] != _checksum(found[name]):
                raise self._damaged(f"the arrays of {name} are not those that were saved")
        return found

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:  # orbax and tensorstore raise errors of many types for a damaged file
            raise self._damaged((str(error).splitlines() or [type(error).__name__])[0][:200]) from error

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self.folder}: the checkpoint is damaged ({why}); remove {self.folder.parents[1]} and train again")


def _checksum(tree: Any) -> int:
    """Return the crc32 of all arrays of a tree, in order."""
    return functools.reduce(lambda crc, x: zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data, crc), jax.tree.leaves(tree), 0)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


def _groups(tree: Any) -> dict[str, list[int]]:
    """Which leaves of a tree are kept as one array, by their places: small ones of one dtype. The names say what is in them, for another
    tree would have other names."""
    groups: dict[str, list[tuple[int, str]]] = {}
    for i, (path, x) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        groups.setdefault(f"small {x.dtype}" if x.size <= SMALL else name, []).append((i, f"{name} {x.dtype}{x.shape}"))
    digest = lambda members: zlib.crc32("\n".join(what for _, what in members).encode())  # noqa: E731
    return {f"{name} {digest(members):08x}": [i for i, _ in members] for name, members in groups.items()}


def _packed(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree, [elements] each, in groups."""
    flat = [x.reshape(-1) for x in jax.tree.leaves(tree)]
    return {name: np.concatenate([flat[i] for i in places]) if places[1:] else flat[places[0]] for name, places in _groups(tree).items()}


def _unpacked(packed: dict[str, np.ndarray], like: Any) -> Any:
    """The tree that was packed; `like` has its structure and shapes."""
    leaves, structure = jax.tree.flatten(like)
    for name, places in _groups(like).items():
        ends = np.cumsum([leaves[i].size for i in places])
        for i, flat in zip(places, np.split(packed[name], ends[:-1]), strict=True):
            leaves[i] = flat.reshape(leaves[i].shape)
    return structure.unflatten(leaves)
