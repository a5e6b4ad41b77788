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

AXIS = "devices"
MODES = ("auto", "jit", "pmap", "mesh")


class Program:
    """A step compiled ahead of time, once for each shape of its batch (the third argument), so that compilations are counted
    and their cost is known.

    `compilations`: how many there were; `flops`: floating-point operations on one device of the program last run, as XLA
    counts them. XLA counts the body of a loop once: `loops` says how often it runs.
    """

    def __init__(self, step: Callable, loops: int = 1):
        self._step, self._loops, self._compiled, self.flops = step, loops, {}, 0.0

    @property
    def compilations(self) -> int:
        return len(self._compiled)

    def __call__(self, state: Any, frozen: Any, batch: Any, *rest: Any) -> Any:
        shapes = tuple((name, x.shape) for name, x in sorted(batch.items()))
        if shapes not in self._compiled:
            compiled = self._step.lower(state, frozen, batch, *rest).compile()
            self._compiled[shapes] = compiled, float(compiled.cost_analysis().get("flops", 0.0)) * self._loops
        compiled, self.flops = self._compiled[shapes]
        return compiled(state, frozen, batch, *rest)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where things are: on one device (`devices` 0), or copied (parameters) and cut by rows (batches) over several."""

    devices: int = 0

    @property
    def multiple(self) -> int:
        """The rows of a batch must be a multiple of this."""
        return max(self.devices, 1)

    def compile(self, step: Callable, donate: tuple[int, ...] = (), loops: int = 1) -> "Program":
        """The program of `step`; `donate` lists the arguments whose buffers it may reuse, `loops` is as in `Program`."""
        if not self.devices:
            return Program(jax.jit(functools.partial(step, axis=None), donate_argnums=donate), loops)
        devices = jax.local_devices()[: self.devices]
        mapped = jax.pmap(functools.partial(step, axis=AXIS), axis_name=AXIS, donate_argnums=donate, devices=devices)
        return Program(mapped, loops)

    def replicate(self, tree: Any) -> Any:
        """A copy of each leaf for each device, which a step may then take over."""
        if not self.devices:
            return jax.tree.map(jax.numpy.array, tree)
        devices = jax.sharding.Mesh(jax.local_devices()[: self.devices], (AXIS,))
        one_each = jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec(AXIS))
        return jax.tree.map(lambda x: jax.device_put(np.broadcast_to(x, (self.devices, *np.shape(x))), one_each), tree)

    def shard(self, batch: Any, axis: int = 0) -> Any:
        """Rows (on `axis`) cut into equal parts, one for each device, with the device first."""
        if not self.devices:
            return batch

        def cut(x):
            parts = x.reshape(*x.shape[:axis], self.devices, x.shape[axis] // self.devices, *x.shape[axis + 1 :])
            return np.moveaxis(parts, axis, 0)

        return jax.tree.map(cut, batch)

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
