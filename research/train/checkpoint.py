"""Orbax checkpoints: trainable parameters, optimizer state, data position and metadata, as separate items.

`latest` is for resuming. `best` is the result of the run. Each array is stored under its name. A checkpoint is written to a temporary
folder and renamed, so an incomplete one is never read. Frozen parameters are not saved: they are loaded or initialised again.
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

CHECKSUMS, STRUCTURES = "checksums", "structures"  # keys of the metadata
PLAIN = re.compile(r"[A-Za-z0-9_./+=,@-]+")


class Checkpoints:
    """The newest checkpoint of one kind (`latest` or `best`) in the folder `checkpoints/` of a run."""

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
        """Return the step of the checkpoint, None if there is no checkpoint."""
        return self._manager.latest_step()

    def save(self, state: Any, data: dict[str, int], meta: dict[str, Any]) -> None:
        """Save the state (one device's copy), the data position and JSON-able metadata, and delete the previous checkpoint.

        `best` does not save the optimizer state.
        """
        step = int(state.step)
        if self.step == step:
            return
        trees = {name: jax.tree.map(np.asarray, getattr(state, name)) for name in self._trees}
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        sums = {key: {name: of(tree) for name, tree in trees.items()} for key, of in ((CHECKSUMS, _checksum), (STRUCTURES, _structure))}
        self._manager.save(step, args=ocp.args.Composite(**items, data=ocp.args.JsonSave(data), meta=ocp.args.JsonSave(meta | sums)))

    def restore(self, like: Any) -> Any:
        """Return the state of `latest`, with the shapes, dtypes and optimizer-state structure of `like`.

        Raises InputError if the saved state has another structure."""
        trees = {"trainable": like.trainable, "opt_state": like.opt_state}
        if self._meta().get(STRUCTURES) != {name: _structure(tree) for name, tree in trees.items()}:
            raise InputError(f"{self.folder}: saved by another version and cannot be resumed; give another --workdir")
        restored = self._restore(**{name: ocp.args.StandardRestore(_zeros(tree)) for name, tree in trees.items()})
        return like.replace(step=np.asarray(self.step, np.int32), **{name: restored[name] for name in trees})

    def restore_trainable(self, like: Tree) -> Tree:
        """Return only the trainable parameters, in the shapes and dtypes of `like`."""
        return self._restore(trainable=ocp.args.StandardRestore(_zeros(like))).trainable

    def meta(self) -> dict[str, Any]:
        """Return the metadata."""
        return {name: value for name, value in self._meta().items() if name not in (CHECKSUMS, STRUCTURES)}

    def _meta(self) -> dict[str, Any]:
        return self._restore(meta=ocp.args.JsonRestore()).meta

    def data(self) -> dict[str, int]:
        """Return the data position."""
        return self._restore(data=ocp.args.JsonRestore()).data

    def bytes(self) -> int:
        """Return the size of the trainable parameters on disk, in bytes."""
        root = self.folder / str(self.step) / "trainable"
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())

    def _plain_path(self) -> Path:
        """Return the absolute path of the folder, or of a temporary link to it if orbax would misread the path.

        Orbax expands a path as a pattern (`runs/lr[1e-3]`). The link exists as long as this object.
        """
        path = self.folder.absolute()
        if PLAIN.fullmatch(str(path)):
            return path
        path.mkdir(parents=True, exist_ok=True)
        parent = Path(tempfile.mkdtemp(prefix="checkpoints-"))
        weakref.finalize(self, shutil.rmtree, parent, ignore_errors=True)
        (parent / path.name).symlink_to(path)
        return parent / path.name

    def _restore(self, **items: Any) -> Any:
        """Return items of the checkpoint. Raises InputError if an item is damaged. Arrays are compared with their checksums."""
        restored = self._read(lambda: self._manager.restore(self.step, args=ocp.args.Composite(**items)))
        for name in items:
            if name in ("data", "meta") and not isinstance(restored[name], dict):
                raise self._damaged(f"{name} is not a JSON object")
        arrays = [name for name in items if name in self._trees]
        expected = self._meta().get(CHECKSUMS, {}) if arrays else {}  # earlier versions wrote no checksums
        for name in arrays:
            if name in expected and expected[name] != _checksum(restored[name]):
                raise self._damaged(f"the arrays of {name} are not those that were saved")
        return restored

    def _read(self, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:  # orbax and tensorstore raise many types of errors for damaged files
            raise self._damaged((str(error).splitlines() or [type(error).__name__])[0][:200]) from error

    def _damaged(self, why: str) -> InputError:
        return InputError(f"{self.folder}: the checkpoint is damaged ({why}); remove {self.folder.parents[1]} and train again")


def _checksum(tree: Any) -> int:
    """Return the crc32 of all arrays of a tree, in the order of its leaves."""
    return functools.reduce(lambda crc, x: zlib.crc32(np.ascontiguousarray(x).view(np.uint8).data, crc), jax.tree.leaves(tree), 0)


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


def _structure(tree: Any) -> int:
    """Return the crc32 of the names, dtypes and shapes of a tree's leaves, in their order."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return zlib.crc32("\n".join(f"{jax.tree_util.keystr(path)} {x.dtype}{x.shape}" for path, x in leaves).encode())
