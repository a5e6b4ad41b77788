"""Runs that compute together: each goes its own way as a coroutine, and where they meet, one program does it for all.

A member is a run like any other, but for its layout, a `Seat`: its programs wait until all who are still there have come to a program
of theirs; then those at the same program are one call, `vmap` over the members. What everybody has in common (the frozen base, the
batches of an evaluation) is there once, and what follows from it alone is computed once. Nothing in a program depends on who has left:
their places are taken by copies, so a member computes what it would compute at any other time in the same company.
Where a CPU has much to do for each member alone, members run one program side by side in threads.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent import futures
from typing import Any

import greenlet
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import jaxpr_as_fun

from research.ablation import alike
from research.parallel import cpu, layouts
from research.parallel.program import Program, compiled, products

MUCH = 2e7  # FLOPs of a member's own: on a CPU half a millisecond or more, beside which it costs little to start each by itself
ABREAST = cpu.cores() + 1  # steps side by side: one more than cores, as a step has parts that use one core only


class Everybodys(np.ndarray):
    """A host array that every member brings with the same contents."""


@dataclasses.dataclass(frozen=True)
class Part:
    """An argument of a step, flat; `common` says which of its leaves are everybody's, `kind` is what those at the same program share."""

    leaves: list[Any]
    tree: Any
    common: tuple[bool, ...]
    kind: Hashable


@dataclasses.dataclass(frozen=True)
class Call:
    """A member at a program: what it would run, and on what; the last part is a tuple of all other arguments."""

    step: Callable
    parts: tuple[Part, ...]

    @property
    def program(self) -> Hashable:
        """What those at the same program have in common."""
        return getattr(self.step, "func", self.step).__qualname__, tuple(part.kind for part in self.parts)

    @property
    def contents(self) -> int:
        """Of the batches that are everybody's: those who have gone different ways may be at others."""
        arrays = (np.ascontiguousarray(x).view(np.uint8) for part in self.parts for x in part.leaves if isinstance(x, Everybodys))
        return zlib.crc32(b"".join(zlib.crc32(x).to_bytes(4, "big") for x in arrays))

    @property
    def common(self) -> list[bool]:
        """Of each leaf, whether it is everybody's."""
        return [its for part in self.parts for its in part.common]

    def leaves(self, common: bool) -> list[Any]:
        """Those that are everybody's, or the others."""
        return [x for part in self.parts for x, its in zip(part.leaves, part.common, strict=True) if its == common]

    def args(self, leaves: Iterable[Any]) -> list[Any]:
        """The arguments with other leaves."""
        leaves = iter(leaves)
        *args, rest = [part.tree.unflatten([next(leaves) for _ in part.leaves]) for part in self.parts]
        return [*args, *rest]


class Meeting:
    """What the members sit around. `kinds` names them, in the order in which they sit, and says which are of one kind: their steps are
    the same function, those of others the same but for numbers. `everybodys` are host arrays that all members' trees hold; they are put
    on the device once.
    """

    def __init__(self, kinds: Mapping[str, Hashable], everybodys: Sequence[np.ndarray] = ()):
        self.kinds = dict(kinds)
        self._programs: dict[Hashable, tuple[Callable, float]] = {}
        self._hosts = list(everybodys)  # held, so that no other array gets the id of one of them
        self._placed = {id(x): jnp.asarray(x) for x in everybodys}
        self._resident = {id(x) for x in self._placed.values()}
        self._chair: greenlet.greenlet | None = None
        self._threads = futures.ThreadPoolExecutor(ABREAST)

    def hold(self, members: Mapping[str, Callable[[], Any]], ghosts: Mapping[str, Callable[[], Any]] | None = None) -> dict[str, Any]:
        """Runs the members to their ends, and gives what they return; what one of them raises ends all.

        Ghosts take part for their kind's sake as long as there is a member."""
        self._chair, results = greenlet.getcurrent(), {}
        there = {name: greenlet.greenlet(function) for name, function in {**members, **(ghosts or {})}.items()}
        answers: dict[str, tuple] = {name: () for name in there}
        while there.keys() & members.keys():
            calls = {}
            for name, member in list(there.items()):
                said = member.switch(*answers[name])
                if member.dead:
                    results[name] = said
                    del there[name]
                else:
                    calls[name] = said
            answers = self._answers(calls)
        return {name: results[name] for name in members}

    def place(self, x: Any) -> jax.Array:
        """`x` on the device; the one copy, where it is everybody's."""
        return self._placed[id(x)] if id(x) in self._placed else jnp.asarray(x)

    def compute(self, step: Callable, parts: tuple[Part, ...]) -> tuple[Any, float]:
        """`step` of the parts, computed with the others', and how many FLOPs it took of each. What goes wrong is raised in all who took
        part."""
        answer = self._chair.switch(Call(step, parts))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def flat(self, argument: Any) -> Part:
        """An argument as a part of a call."""
        leaves, tree = jax.tree.flatten(argument)
        common = tuple(isinstance(x, Everybodys) or id(x) in self._resident for x in leaves)
        return Part(leaves, tree, common, (tree, common, tuple((x.shape, x.dtype) for x in leaves)))

    def _answers(self, calls: dict[str, Call]) -> dict[str, tuple]:
        groups: dict[Hashable, dict[str, Call]] = {}
        for name, call in calls.items():
            groups.setdefault((call.program, call.contents), {})[name] = call
        answers = {}
        for (program, _), group in groups.items():
            try:
                answers |= self._run(program, group)
            except Exception as error:  # those who called have to say what becomes of them
                answers |= dict.fromkeys(group, error)
        return {name: (answer,) for name, answer in answers.items()}

    def _run(self, program: Hashable, calls: dict[str, Call]) -> dict[str, tuple[Any, float]]:
        if program not in self._programs:
            self._programs[program] = self._compiled(calls)
        run, flops = self._programs[program]
        return {name: (out, flops) for name, out in run(calls).items()}

    def _compiled(self, calls: dict[str, Call]) -> tuple[Callable, float]:
        """What gives the outputs of calls like these by name, and the FLOPs of a member."""
        first = next(iter(calls.values()))
        steps = dict.fromkeys(self.kinds.values(), first.step) | {self.kinds[name]: call.step for name, call in calls.items()}
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for part in first.parts for x in part.leaves]
        of_leaves = [lambda *leaves, step=step: step(*first.args(leaves)) for step in steps.values()]
        traced, out = jax.make_jaxpr(of_leaves[0], return_shape=True)(*shapes)
        if len(steps) > 1:
            alone, found = alike.lift(of_leaves, shapes)
            numbers = {name: [number[list(steps).index(kind)] for number in found] for name, kind in self.kinds.items()}
        else:
            alone, numbers = (lambda _, leaves: jaxpr_as_fun(traced)(*leaves)), dict.fromkeys(self.kinds, [])
        how = self._in_threads if jax.default_backend() == "cpu" and _much_of_its_own(traced.jaxpr, first.common) else self._as_one
        return how(alone, numbers, calls, jax.tree.structure(out))

    def _as_one(self, alone: Callable, numbers: dict[str, list], calls: dict[str, Call], out_tree: Any) -> tuple[Callable, float]:
        common = next(iter(calls.values())).common

        def together(once: list, own: list) -> list:
            def one(numbers, own):
                mine, everybodys = iter(own), iter(once)
                return alone(numbers, [next(everybodys if its else mine) for its in common])

            stacked = [x if hasattr(x, "shape") else jnp.stack(x) for x in own]
            each = [jnp.stack(values) for values in zip(*numbers.values(), strict=True)]
            out = jax.vmap(one, axis_size=len(self.kinds))(each, stacked)
            return [out_tree.unflatten([x[seat] for x in out]) for seat in range(len(self.kinds))]

        def arguments(calls: dict[str, Call]) -> tuple[list, list]:
            first = next(iter(calls.values()))
            seats = [calls.get(name, first).leaves(common=False) for name in self.kinds]
            own = zip(*seats, strict=True)  # host arrays go in as one, arrays on the device as they are
            return first.leaves(common=True), [np.stack(x) if isinstance(x[0], np.ndarray) else list(x) for x in own]

        program, flops = compiled(jax.jit(together), *arguments(calls))
        run = lambda calls: {name: out for name, out in zip(self.kinds, program(*arguments(calls)), strict=True) if name in calls}  # noqa: E731
        return run, flops / len(self.kinds)

    def _in_threads(self, alone: Callable, numbers: dict[str, list], calls: dict[str, Call], out_tree: Any) -> tuple[Callable, float]:
        own = lambda name, call: [*numbers[name], *(x for part in call.parts for x in part.leaves)]  # noqa: E731
        name, call = next(iter(calls.items()))
        count, leaves = len(numbers[name]), own(name, call)
        traced = jax.make_jaxpr(lambda *leaves: alone(leaves[:count], leaves[count:]))(*leaves)
        first, then = map(jax.jit, alike.apart(traced, [False] * count + call.common))
        base = call.leaves(common=True)
        between = first(base)
        program, flops = compiled(then, between, leaves)

        def run(calls: dict[str, Call]) -> dict[str, Any]:
            nonlocal base, between
            now = next(iter(calls.values())).leaves(common=True)
            if any(x is not y for x, y in zip(now, base, strict=True)):
                base, between = now, first(now)
            # XLA computes in turn what one thread starts, and side by side what several do.
            started = {name: self._threads.submit(program, between, own(name, call)) for name, call in calls.items()}
            return {name: out_tree.unflatten(leaves.result()) for name, leaves in started.items()}

        return run, flops


@dataclasses.dataclass(frozen=True)
class Seat(layouts.Layout):
    """A member's place in a meeting, as a layout: one device, and the base is there already."""

    meeting: Meeting | None = None

    @property
    def fleet(self) -> tuple[str, ...]:
        return tuple(self.meeting.kinds)

    def compile(self, step: Callable, donate: tuple[int, ...] = ()) -> Program:
        return Joint(step, self.meeting)

    def replicate(self, tree: Any) -> Any:
        return jax.tree.map(self.meeting.place, tree)

    place = replicate

    def shard_same(self, batch: Any) -> Any:
        return {name: x.view(Everybodys) for name, x in batch.items()}


class Joint(Program):
    """A member's program: it runs when the others have come to theirs."""

    def __init__(self, step: Callable, meeting: Meeting):
        super().__init__(functools.partial(step, axis=None))
        self._meeting, self._frozen = meeting, (None, None)

    def __call__(self, state: Any, frozen: Any, batch: Any, *rest: Any) -> Any:
        if self._frozen[0] is not frozen:  # it is the same for all steps, and large
            self._frozen = frozen, self._meeting.flat(frozen)
        parts = self._meeting.flat(state), self._frozen[1], self._meeting.flat(batch), self._meeting.flat(rest)
        out, self.flops = self._meeting.compute(self._step, parts)
        self._compiled[parts[2].kind] = None
        return out


def _much_of_its_own(jaxpr: Any, common: Sequence[bool]) -> bool:
    """Whether a step takes much computing, and hardly any that follows from what is everybody's alone."""
    flops = products(alike.own(jaxpr, common), loops=True)
    return flops >= MUCH and flops > 0.7 * products(jaxpr.eqns, loops=True)
