"""Runs that compute together: each goes its own way as a coroutine, and where they meet, one program does it for all.

A member is a run like any other, but for its layout, a `Seat`: its programs wait until all who are still there have come to a program
of theirs; then those at the same program are one call, `vmap` over the members. What everybody has in common (the frozen base, the
batches of an evaluation) is there once, and what follows from it alone is computed once. Nothing in a program depends on who has left:
their places are taken by copies, so a member computes what it would compute at any other time in the same company.
"""

import dataclasses
import functools
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import greenlet
import jax
import jax.numpy as jnp
import numpy as np

from research import alike, parallel


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
        first = next(iter(calls.values()))
        seats = [calls.get(name, first) for name in self.kinds]
        once, own = first.leaves(common=True), [_side_by_side(x) for x in zip(*(call.leaves(common=False) for call in seats), strict=True)]
        if program not in self._programs:
            together, flops = parallel.compiled(jax.jit(self._together(seats)), once, own)
            self._programs[program] = together, flops / len(seats)
        together, flops = self._programs[program]
        return {name: (out, flops) for name, out in zip(self.kinds, together(once, own), strict=True) if name in calls}

    def _together(self, seats: Sequence[Call]) -> Callable:
        first, count = seats[0], len(seats)
        steps = {kind: call.step for kind, call in zip(self.kinds.values(), seats, strict=True)}
        common = [its for part in first.parts for its in part.common]
        shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for part in first.parts for x in part.leaves]
        out_tree = jax.tree.structure(jax.eval_shape(first.step, *first.args(shapes)))
        flat = [lambda *leaves, step=step: jax.tree.leaves(step(*first.args(leaves))) for step in steps.values()]
        if len(flat) > 1:
            alone, found = alike.lift(flat, shapes)
            numbers = [number[[list(steps).index(kind) for kind in self.kinds.values()]] for number in found]
        else:
            alone, numbers = (lambda numbers, leaves: flat[0](*leaves)), []

        def together(once: list, own: list) -> list:
            def one(seat, numbers, own):
                mine, everybodys = iter(own), iter(once)
                return alone(numbers, [next(everybodys if its else mine) for its in common])

            stacked = [x if hasattr(x, "shape") else jnp.stack(x) for x in own]
            out = jax.vmap(one)(jnp.arange(count), [jnp.asarray(x) for x in numbers], stacked)
            return [out_tree.unflatten([x[seat] for x in out]) for seat in range(count)]

        return together


@dataclasses.dataclass(frozen=True)
class Seat(parallel.Layout):
    """A member's place in a meeting, as a layout: one device, and the base is there already."""

    meeting: Meeting | None = None

    @property
    def company(self) -> tuple[str, ...]:
        return tuple(self.meeting.kinds)

    def compile(self, step: Callable, donate: tuple[int, ...] = ()) -> parallel.Program:
        return Joint(step, self.meeting)

    def replicate(self, tree: Any) -> Any:
        return jax.tree.map(self.meeting.place, tree)

    place = replicate

    def shard_same(self, batch: Any) -> Any:
        return {name: x.view(Everybodys) for name, x in batch.items()}


class Joint(parallel.Program):
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


def _side_by_side(leaves: Sequence[Any]) -> Any:
    """What goes into the program of the members' leaves: host arrays as one, arrays on the device as they are."""
    return np.stack(leaves) if isinstance(leaves[0], np.ndarray) else list(leaves)
