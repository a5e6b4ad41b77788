"""Checkpoints by orbax: what trains, the optimizer's state, the data position and metadata, as separate items.

`latest` serves to go on, `best` is what the run keeps. A step is written beside its place and renamed, so a half-written one
is never taken for whole. Frozen parameters are not saved: they come from where they came from.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from research.params.tree import Tree


class Checkpoints:
    """The newest checkpoint of one kind (`latest` or `best`) in a run's `checkpoints/`."""

    def __init__(self, folder: Path, kind: str):
        options = ocp.CheckpointManagerOptions(max_to_keep=1, create=True, enable_async_checkpointing=False)
        self._trees = ("trainable", "opt_state") if kind == "latest" else ("trainable",)
        self._manager = ocp.CheckpointManager((folder / kind).absolute(), options=options, item_names=(*self._trees, "data", "meta"))
        self.folder = folder / kind

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
        arrays = {name: ocp.args.StandardSave(jax.tree.map(np.asarray, getattr(state, name))) for name in self._trees}
        self._manager.save(step, args=ocp.args.Composite(**arrays, data=ocp.args.JsonSave(data), meta=ocp.args.JsonSave(meta)))

    def restore(self, like: Any) -> Any:
        """The state; `like` gives shapes and dtypes, and the structure of the optimizer's state."""
        items = {"trainable": like.trainable, "opt_state": like.opt_state}
        found = self._restore(**{name: ocp.args.StandardRestore(_zeros(tree)) for name, tree in items.items()})
        return like.replace(step=np.asarray(self.step, np.int32), trainable=found.trainable, opt_state=found.opt_state)

    def restore_trainable(self, like: Tree) -> Tree:
        """What trains alone, in the shapes and dtypes of `like`."""
        return self._restore(trainable=ocp.args.StandardRestore(_zeros(like))).trainable

    def meta(self) -> dict[str, Any]:
        """The metadata alone."""
        return self._restore(meta=ocp.args.JsonRestore()).meta

    def data(self) -> dict[str, int]:
        """The data position alone."""
        return self._restore(data=ocp.args.JsonRestore()).data

    def bytes(self) -> int:
        """Bytes on disk of what trains."""
        root = self.folder / str(self.step) / "trainable"
        return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())

    def _restore(self, **items: Any) -> Any:
        return self._manager.restore(self.step, args=ocp.args.Composite(**items))


def _zeros(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)
