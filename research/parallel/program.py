"""Steps compiled ahead of time, with their compilations counted and their FLOPs known."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax


class Program:
    """A step compiled ahead of time, once for each shape of its batch (the third argument), so that compilations are counted
    and their cost is known.

    `compilations`: how many there were; `flops`: floating-point operations on one device of the program last run: as XLA counts
    them, and the products in loops for every time after the first, which is all that XLA counts.
    """

    def __init__(self, step: Callable):
        self._step, self._compiled, self.flops = step, {}, 0.0

    @property
    def compilations(self) -> int:
        return len(self._compiled)

    def __call__(self, state: Any, frozen: Any, batch: Any, *rest: Any) -> Any:
        shapes = tuple((name, x.shape) for name, x in sorted(batch.items()))
        if shapes not in self._compiled:
            self._compiled[shapes] = compiled(self._step, state, frozen, batch, *rest)
        program, self.flops = self._compiled[shapes]
        return program(state, frozen, batch, *rest)


def compiled(step: Callable, *args: Any) -> tuple[Callable, float]:
    """The program of a jitted (or pmapped) step for arguments like these, and its FLOPs as in `Program`."""
    if hasattr(step, "trace"):
        traced = step.trace(*args)
        lowered, jaxpr = traced.lower(), traced.jaxpr
    else:  # pmap gives no trace
        lowered, jaxpr = step.lower(*args), jax.make_jaxpr(step)(*args)
    program = lowered.compile()
    again = products(jaxpr.jaxpr.eqns, loops=True) - products(jaxpr.jaxpr.eqns, loops=False)
    return program, float(program.cost_analysis().get("flops", 0.0)) + again


def products(equations: Iterable[Any], loops: bool) -> float:
    """Floating-point operations of the matrix products in a traced function's equations; with `loops`, as often as their loops run."""
    total = 0.0
    for equation in equations:
        times = equation.params["length"] if loops and equation.primitive.name == "scan" else 1
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                total += times * products(getattr(inner, "jaxpr", inner).eqns, loops)
    return total


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")
