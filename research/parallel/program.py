"""Ahead-of-time compilation of steps, with the number of compilations and FLOPs."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax


class Program:
    """A step that is compiled ahead of time, once for each set of shapes in its batch (the third argument).

    `compilations` is the number of compilations. `flops` is the number of floating-point operations on one device of the program
    that ran last. XLA counts the body of a loop once; the matrix products of the other iterations are added to XLA's count.
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


class CompilationCount:
    """Counts the compilations of programs from the moment that they are added."""

    def __init__(self):
        self._before: dict[Program, int] = {}

    def add(self, program: Program) -> Program:
        """Count the program, and return it."""
        self._before.setdefault(program, program.compilations)
        return program

    @property
    def total(self) -> int:
        """Return how often the programs have been compiled since they were added."""
        return sum(program.compilations - before for program, before in self._before.items())


def compiled(step: Callable, *args: Any) -> tuple[Callable, float]:
    """Return a jitted or pmapped step compiled for arguments of these shapes, and its FLOPs as in `Program`."""
    if hasattr(step, "trace"):
        traced = step.trace(*args)
        lowered, jaxpr = traced.lower(), traced.jaxpr
    else:  # a pmapped function has no trace method
        lowered, jaxpr = step.lower(*args), jax.make_jaxpr(step)(*args)
    program = lowered.compile()
    repeated = products(jaxpr.jaxpr.eqns, loops=True) - products(jaxpr.jaxpr.eqns, loops=False)
    return program, float(program.cost_analysis().get("flops", 0.0)) + repeated


def products(equations: Iterable[Any], loops: bool) -> float:
    """Return the FLOPs of the matrix products in the equations of a jaxpr.

    With `loops`, count each product in a `scan` once per iteration, else once.
    """
    total = 0.0
    for equation in equations:
        iterations = equation.params["length"] if loops and equation.primitive.name == "scan" else 1
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += 2.0 * math.prod(equation.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
        for inner in jax.tree.leaves(list(equation.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner):
                total += iterations * products(getattr(inner, "jaxpr", inner).eqns, loops)
    return total


def _is_jaxpr(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")
