"""Programs that are alike but for numbers, as one program that takes the numbers.

A learning rate or a dropout rate is a constant of a run's step. Steps of runs that differ in such constants have the same equations
when they are traced; where their literals differ, one step with an argument in the literal's place does for all of them. And what such
steps make of the arguments that they share need not be made by each.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

INLINED = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call")  # no gradient is taken of a step


class NotAlikeError(Exception):
    """The programs differ in more than numbers."""


def lift(functions: Sequence[Callable], leaves: Sequence[jax.ShapeDtypeStruct]) -> tuple[Callable, list[np.ndarray]]:
    """What the `functions` of arrays like `leaves` have in common, and in which numbers they differ.

    Gives `common(numbers, leaves) -> output leaves` and a list of arrays [number of functions]: `common` with the k-th entry of each is
    functions[k]. Where there is no difference the list is empty. Raises NotAlikeError where they differ in anything else.
    """
    programs = [jax.make_jaxpr(function)(*leaves) for function in functions]
    differing: dict[tuple, np.ndarray] = {}

    def note(values: tuple, dtype: Any) -> np.ndarray:
        differing.setdefault((str(dtype), *map(float, values)), np.array(values, dtype))
        return np.array(values[0], dtype)

    jax.eval_shape(lambda *leaves: _run(programs, leaves, note), *leaves)

    def common(numbers: Sequence[jax.Array], leaves: Sequence[jax.Array]) -> list[jax.Array]:
        given = dict(zip(differing, numbers, strict=True))
        return _run(programs, leaves, lambda values, dtype: given[(str(dtype), *map(float, values))])

    return common, list(differing.values())


def own(jaxpr: Jaxpr, shared: Sequence[bool]) -> list[Any]:
    """The equations of a traced function that do not follow from its `shared` arguments alone."""
    others, found = {variable for variable, its in zip(jaxpr.invars, shared, strict=True) if not its}, []
    for equation in jaxpr.eqns:
        if any(atom in others for atom in equation.invars if not isinstance(atom, Literal)):
            others.update(equation.outvars)
            found.append(equation)
    return found


def apart(program: ClosedJaxpr, shared: Sequence[bool]) -> tuple[Callable, Callable]:
    """A traced function of leaves in two steps: what it makes of the `shared` ones alone, and all else.

    Gives `first(shared leaves) -> between` and `then(between, leaves) -> output leaves`. What is larger than what it is made of is not
    made first: to read it would cost more than to make it again.
    """
    jaxpr = program.jaxpr
    known = {variable for variable, its in zip(jaxpr.invars, shared, strict=True) if its}
    parts: tuple[list, list] = [], []
    for equation in jaxpr.eqns:
        variables = [atom for atom in equation.invars if not isinstance(atom, Literal)]
        early = bool(variables) and known.issuperset(variables) and _bytes(equation.outvars) <= _bytes(variables)
        parts[not early].append(equation)
        known.update(equation.outvars if early else ())
    made = {variable for equation in parts[0] for variable in equation.outvars}
    asked = [*(atom for equation in parts[1] for atom in equation.invars), *jaxpr.outvars]
    wanted = list(dict.fromkeys(atom for atom in asked if not isinstance(atom, Literal) and atom in made))

    def first(leaves: Sequence[jax.Array]) -> list[jax.Array]:
        given = [variable for variable, its in zip(jaxpr.invars, shared, strict=True) if its]
        return _follow(parts[0], dict(zip(given, leaves, strict=True)), wanted)

    def then(between: Sequence[jax.Array], leaves: Sequence[jax.Array]) -> list[jax.Array]:
        values = dict(zip([*jaxpr.constvars, *jaxpr.invars, *wanted], [*program.consts, *leaves, *between], strict=True))
        return _follow(parts[1], values, jaxpr.outvars)

    return first, then


def _follow(equations: Sequence[Any], values: dict[Any, Any], wanted: Sequence[Any]) -> list[Any]:
    read = lambda atom: atom.val if isinstance(atom, Literal) else values[atom]  # noqa: E731
    for equation in equations:
        outputs = _apply([equation], [read(atom) for atom in equation.invars], lambda values, dtype: values[0])
        values.update(zip(equation.outvars, outputs, strict=True))
    return [read(atom) for atom in wanted]


def _bytes(variables: Sequence[Any]) -> int:
    return sum(variable.aval.size * variable.aval.dtype.itemsize for variable in variables)


def _run(programs: Sequence[ClosedJaxpr], arguments: Sequence[Any], number: Callable) -> list[Any]:
    """Evaluates the programs as one; `number(values, dtype)` stands for a scalar that they have differently."""
    constants = []
    for values in _across(programs, "consts"):
        same = all(value is values[0] or _equal(value, values[0]) for value in values)
        if not same and np.ndim(values[0]):
            raise NotAlikeError("an array that one of them holds is another's with other values")
        constants.append(values[0] if same else number(values, np.result_type(values[0])))
    return _evaluate([program.jaxpr for program in programs], constants, arguments, number)


def _evaluate(jaxprs: Sequence[Jaxpr], constants: Sequence[Any], arguments: Sequence[Any], number: Callable) -> list[Any]:
    values: dict[Any, Any] = {}
    ours = [{} for _ in jaxprs]  # each one's variables -> those of the first

    def write(variables: tuple, value: Any) -> None:
        values[variables[0]] = value
        for names, variable in zip(ours, variables, strict=True):
            names[variable] = variables[0]

    def read(atoms: tuple) -> Any:
        if not isinstance(atoms[0], Literal):
            if any(names.get(atom) is not atoms[0] for names, atom in zip(ours, atoms, strict=True)):
                raise NotAlikeError("they join their parts in other ways")
            return values[atoms[0]]
        if not all(isinstance(atom, Literal) and atom.aval.dtype == atoms[0].aval.dtype for atom in atoms):
            raise NotAlikeError("what is a number in one is none in another")
        found = tuple(atom.val for atom in atoms)
        return found[0] if all(_equal(x, found[0]) for x in found) else number(found, atoms[0].aval.dtype)

    for variables, value in zip(_across(jaxprs, "constvars"), constants, strict=True):
        write(variables, value)
    for variables, value in zip(_across(jaxprs, "invars"), arguments, strict=True):
        write(variables, value)
    for equations in _across(jaxprs, "eqns"):
        first = equations[0]
        if any(equation.primitive is not first.primitive for equation in equations):
            raise NotAlikeError(f"{first.primitive} in one is {next(e.primitive for e in equations if e.primitive is not first.primitive)}")
        inputs = [read(atoms) for atoms in _across(equations, "invars")]
        outputs = _apply(equations, inputs, number)
        for variables, value in zip(_across(equations, "outvars"), outputs, strict=True):
            write(variables, value)
    return [read(atoms) for atoms in _across(jaxprs, "outvars")]


def _apply(equations: Sequence[Any], inputs: Sequence[Any], number: Callable) -> list[Any]:
    first = equations[0]
    inner = [next((p for name in ("jaxpr", "call_jaxpr") if (p := e.params.get(name)) is not None), None) for e in equations]
    if first.primitive.name in INLINED and inner[0] is not None:
        return _run(inner, inputs, number)
    if any(str(equation.params) != str(first.params) for equation in equations[1:]):
        raise NotAlikeError(f"{first.primitive} has other parameters, or other numbers inside")
    out = first.primitive.bind(*inputs, **first.params)
    return out if first.primitive.multiple_results else [out]


def _across(things: Sequence[Any], name: str) -> list[tuple]:
    """The entries of the list `name` of all things, side by side."""
    lists = [getattr(thing, name) for thing in things]
    if len({len(one) for one in lists}) > 1:
        raise NotAlikeError(f"they have {' and '.join(str(len(one)) for one in lists)} {name}")
    return list(zip(*lists, strict=True))


def _equal(a: Any, b: Any) -> bool:
    return bool(np.array_equal(a, b))
