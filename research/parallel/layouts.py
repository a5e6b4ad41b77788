"""How a step meets devices: jit on one, pmap over several. The numbers are the same.

A step is written once as `step(..., axis)`: it adds up over the mapped axis called `axis`, or over nothing when it is None.
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
    """Where things are: on one device (`devices` 0), or copied (parameters) and cut by rows (batches) over several."""

    devices: int = 0

    @property
    def multiple(self) -> int:
        """The rows of a batch must be a multiple of this."""
        return max(self.devices, 1)

    @property
    def fleet(self) -> tuple[str, ...]:
        """The names of the runs that compute together, this one among them; () where it is alone."""
        return ()

    def compile(self, step: Callable, donate: tuple[int, ...] = ()) -> "Program":
        """The program of `step`; `donate` lists the arguments whose buffers it may reuse."""
        if not self.devices:
            return Program(jax.jit(functools.partial(step, axis=None), donate_argnums=donate))
        devices = jax.local_devices()[: self.devices]
        mapped = jax.pmap(functools.partial(step, axis=AXIS), axis_name=AXIS, donate_argnums=donate, devices=devices)
        return Program(mapped)

    def replicate(self, tree: Any) -> Any:
        """A copy of each leaf for each device, which a step may then take over."""
        if not self.devices:
            return jax.tree.map(jax.numpy.array, tree)
        devices = jax.sharding.Mesh(jax.local_devices()[: self.devices], (AXIS,))
        one_each = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec(AXIS))
        return jax.tree.map(lambda x: jax.device_put(np.broadcast_to(x, (self.devices, *np.shape(x))), one_each), tree)

    def place(self, tree: Any) -> Any:
        """As `replicate`, but what is on a single device already is taken as it is: a step that takes it over leaves it deleted."""
        if self.devices:
            return self.replicate(tree)
        return jax.tree.map(lambda x: x if isinstance(x, jax.Array) else jax.numpy.array(x), tree)

    def shard(self, batch: Any, axis: int = 0) -> Any:
        """Rows (on `axis`) cut into equal parts, one for each device, with the device first."""
        if not self.devices:
            return batch

        def cut(x):
            parts = x.reshape(*x.shape[:axis], self.devices, x.shape[axis] // self.devices, *x.shape[axis + 1 :])
            return np.moveaxis(parts, axis, 0)

        return jax.tree.map(cut, batch)

    def shard_same(self, batch: Any) -> Any:
        """`shard` for a batch that has nothing to do with the seed, as those of an evaluation."""
        return self.shard(batch)

    def first(self, tree: Any) -> Any:
        """One device's copy of replicated leaves."""
        return jax.tree.map(lambda x: x[0], tree) if self.devices else tree

    def join(self, x: jax.Array) -> np.ndarray:
        """The rows of a result, put together again: the inverse of `shard`."""
        x = np.asarray(x)
        return x.reshape(-1, *x.shape[2:]) if self.devices else x


def layout(mode: str) -> Layout:
    """The layout for `config.parallel`: `auto` is pmap where there are several devices. Raises InputError otherwise."""
    if mode not in MODES:
        raise InputError(f"parallel {mode!r}: {nearest(mode, MODES)}")
    if mode == "mesh":
        raise InputError("parallel='mesh' is not built yet; use --config.parallel=jit or pmap")
    if mode == "jit" or (mode == "auto" and jax.local_device_count() == 1):
        return Layout()
    return Layout(jax.local_device_count())


def add_up(tree: Any, axis: str | None) -> Any:
    """Sums over devices inside a step."""
    return tree if axis is None else jax.lax.psum(tree, axis)
