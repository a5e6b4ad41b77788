"""Running a step on devices: jit on one device or pmap over several, with the same results.

A step is written once as `step(..., axis)`. It sums over the mapped axis named `axis`, or over nothing if `axis` is None.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from research.errors import InputError, nearest
from research.parallel.program import Program

AXIS = "devices"
MODES = ("auto", "jit", "pmap", "mesh")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The placement of arrays. With `devices` 0, everything is on one device, under jit.

    Otherwise parameters are replicated and the rows of batches are sharded over `devices` devices, under pmap.
    """

    devices: int = 0

    @property
    def multiple(self) -> int:
        """Return the number that must divide the number of rows of a batch."""
        return max(self.devices, 1)

    def compile(self, step: Callable, donate: tuple[int, ...] = (), in_axes: Any = 0) -> "Program":
        """Return the program of `step`. `donate` lists the indices of donated arguments, whose buffers the program may reuse.

        `in_axes` is None for an argument of which all devices take the same copy, as in `jax.pmap`.
        """
        if not self.devices:
            return Program(jax.jit(functools.partial(step, axis=None), donate_argnums=donate))
        devices = jax.local_devices()[: self.devices]
        mapped = jax.pmap(functools.partial(step, axis=AXIS), axis_name=AXIS, in_axes=in_axes, donate_argnums=donate, devices=devices)
        return Program(mapped)

    def program(self, key: str, step: Callable, donate: tuple[int, ...] = (), in_axes: Any = 0) -> "Program":
        """Return what `compile` returns, or the program that this process compiled under the same key before.

        `key` must name all that `step` depends on, beside the shapes of its batch.
        """
        return _shared(self, key, lambda: self.compile(step, donate, in_axes))

    def replicate(self, tree: Any) -> Any:
        """Return a copy of each leaf on each device. A step may donate the copies."""
        if not self.devices:
            return jax.tree.map(jax.numpy.array, tree)
        mesh = jax.sharding.Mesh(jax.local_devices()[: self.devices], (AXIS,))
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(AXIS))
        return jax.tree.map(lambda x: jax.device_put(np.broadcast_to(x, (self.devices, *np.shape(x))), sharding), tree)

    def place(self, tree: Any) -> Any:
        """Return what `replicate` returns, but do not copy JAX arrays on a single device. A step that donates such an array deletes it."""
        if self.devices:
            return self.replicate(tree)
        return jax.tree.map(lambda x: x if isinstance(x, jax.Array) else jax.numpy.array(x), tree)

    def shard(self, batch: Any, axis: int = 0) -> Any:
        """Return the batch with its rows (on `axis`) split into equal parts, one for each device, on a new first axis."""
        if not self.devices:
            return batch

        def split_rows(x):
            parts = x.reshape(*x.shape[:axis], self.devices, x.shape[axis] // self.devices, *x.shape[axis + 1 :])
            return np.moveaxis(parts, axis, 0)

        return jax.tree.map(split_rows, batch)

    def first(self, tree: Any) -> Any:
        """Return the first device's copy of replicated leaves."""
        return jax.tree.map(lambda x: x[0], tree) if self.devices else tree

    def join(self, x: jax.Array) -> np.ndarray:
        """Return a sharded result as one NumPy array of rows: the inverse of `shard`."""
        x = np.asarray(x)
        return x.reshape(-1, *x.shape[2:]) if self.devices else x


PROGRAMS = 32  # kept for later runs of a process; the oldest is dropped first
_programs: dict[tuple[Layout, str], Program] = {}


def _shared(layout: Layout, key: str, make: Callable[[], Program]) -> Program:
    if (layout, key) not in _programs:
        if len(_programs) >= PROGRAMS:
            del _programs[next(iter(_programs))]
        _programs[layout, key] = make()
    return _programs[layout, key]


def layout(mode: str) -> Layout:
    """Return the layout for a value of `config.parallel`. `auto` means pmap if there are several devices, else jit.

    Raise InputError for an unknown mode, and for `mesh`, which is not implemented.
    """
    if mode not in MODES:
        raise InputError(f"parallel {mode!r}: {nearest(mode, MODES)}")
    if mode == "mesh":
        raise InputError("parallel='mesh' is not implemented yet; use --config.parallel=jit or pmap")
    if mode == "jit" or (mode == "auto" and jax.local_device_count() == 1):
        return Layout()
    return Layout(jax.local_device_count())


def add_up(tree: Any, axis: str | None) -> Any:
    """Return the sums of all leaves over the devices of the mapped `axis`, inside a step. Return the tree itself if `axis` is None."""
    return tree if axis is None else jax.lax.psum(tree, axis)
