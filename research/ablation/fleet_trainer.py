"""Lockstep training of several runs as one vmapped program. Their states are stacked on a leading axis and stay on the device."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.data.batches import Batches
from research.experiment.experiment import Experiment
from research.parallel.layouts import Layout
from research.parallel.program import CompilationCount
from research.params.tree import Tree, flatten, merge, unflatten
from research.train import trainers
from research.train.evaluate import Evaluation, evaluate_all
from research.train.phases import Phase
from research.train.scalars import structure
from research.train.step import Batch, State, split_microbatches


class Fleet:
    """The `trainers.Trainer` of several experiments with the same structure on one device. Lists have one element per member."""

    def __init__(self, members: Sequence[Experiment]):
        self._members, first = members, members[0]
        constants = [flatten(experiment.model.device_constants) for experiment in members]
        shared = {name for name, x in constants[0].items() if all(_equal(x, other[name]) for other in constants[1:])}
        self._shared = {name: jnp.array(x) for name, x in constants[0].items() if name in shared}
        self._per_member = _stack([{name: x for name, x in one.items() if name not in shared} for one in constants])
        self._keys, self._parts = _stack([one.dropout_key for one in members]), tuple(f"{part}/" for part in first.model.frozen)
        function = trainers.eval_function(first.model)

        def evaluation(trainable: Tree, frozen: tuple, batch: Batch, axis: None = None):
            shared, per_member = frozen
            return jax.vmap(lambda trainable, per_member: function(trainable, unflatten(shared | per_member), batch))(trainable, per_member)

        self._count = CompilationCount()
        key = f"fleet eval {structure(first.model)} {sorted(self._per_member)}"
        self._evaluation = self._count.add(Layout().program(key, evaluation))

    @property
    def compilations(self) -> int:
        """Return how many compilations this fleet caused."""
        return self._count.total

    @property
    def flops(self) -> float:
        """Return the FLOPs of the last step of one member."""
        return self._program.flops / len(self._members)

    def enter(self, phase: Phase, states: Sequence[State | None]) -> None:
        """Begin a phase and stack the states of the members. A member without a state gets its initial state."""
        full = [
            State(np.zeros((), np.int32), experiment.model.trainable, ()) if state is None else state
            for experiment, state in zip(self._members, states, strict=True)
        ]
        each = [trainers.phase_state(experiment, phase, state) for experiment, state in zip(self._members, full, strict=True)]
        models, phase_states, frozen_now = zip(*each, strict=True)
        model = models[0]
        self._state, self._frozen_now, self._model = _stack(phase_states), _stack(frozen_now), model.without_parameters
        function = trainers.train_function(phase, model)

        def step(state: State, frozen: tuple, batch: Batch, key: jax.Array, scalars: Any, active: jax.Array, axis: None = None):
            shared, per_member, frozen_now = frozen

            def one(state, per_member, frozen_now, batch, key, scalars, active):
                new, stats = function(state, merge(unflatten(shared | per_member), frozen_now), batch, key, scalars)
                return jax.tree.map(lambda after, before: jnp.where(active, after, before), new, state), stats

            return jax.vmap(one)(state, per_member, frozen_now, batch, key, scalars, active)

        key = f"fleet train {trainers.program_key(self._members[0], model)} {sorted(self._per_member)}"
        self._program = self._count.add(Layout().program(key, step, donate=(0,)))

    def step(self, number: int, batches: Sequence[Batch | None], active: Sequence[bool]) -> Any:
        some = next(batch for batch in batches if batch is not None)
        accumulate = self._members[0].config.accumulate
        parts = [split_microbatches(x, accumulate, Layout()) for x in _same_rows([some if x is None else x for x in batches])]
        scalars = jax.tree.map(lambda *x: np.stack(x), *(experiment.scalars(number - 1) for experiment in self._members))
        frozen = self._shared, self._per_member, self._frozen_now
        batch = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        self._state, stats = self._program(self._state, frozen, batch, self._keys, scalars, np.asarray(active))
        return stats

    def stats(self, stats: Any) -> list[dict[str, np.ndarray]]:
        return _members(jax.tree.map(lambda x: np.asarray(x, np.float64), stats), len(self._members))

    def eval_params(self) -> Tree:
        params = jax.vmap(self._model.eval_params)(self._state.trainable, self._state.opt_state)
        return merge(params, self._frozen_now)

    def evaluate(self, params: Tree, batches: Batches) -> list[Evaluation]:
        frozen = tuple({name: x for name, x in tree.items() if name.startswith(self._parts)} for tree in (self._shared, self._per_member))
        fetch = lambda out, sums: (jax.tree.map(np.asarray, out), _members(jax.tree.map(np.asarray, sums), len(self._members)))  # noqa: E731
        return evaluate_all(lambda batch: self._evaluation(params, frozen, batch), batches, fetch, self._members[0].model.task.outputs_per)

    def full_state(self, run: int, params: Tree | None = None) -> State:
        trainable = merge(self._state.trainable, self._frozen_now) if params is None else params
        return jax.tree.map(lambda x: x[run], self._state.replace(trainable=trainable))

    def placed(self, trees: Sequence[Tree | None]) -> Tree:
        some = next(tree for tree in trees if tree is not None)
        return _stack([some if tree is None else tree for tree in trees])


def _equal(a: Any, b: Any) -> bool:
    return a is b or (a.shape == b.shape and np.array_equal(a, b))


def _stack(trees: Sequence[Tree]) -> Tree:
    """Return trees of the same structure stacked on a new leading axis, on the device."""
    return jax.tree.map(lambda *x: jnp.asarray(np.stack([np.asarray(leaf) for leaf in x])), *trees)


def _members(tree: Any, size: int) -> list[Any]:
    """Return a list of one tree per member, from a tree on the host with a leading axis of members."""
    return [jax.tree.map(lambda x: x[i], tree) for i in range(size)]  # noqa: B023


def _same_rows(batches: Sequence[Batch]) -> list[Batch]:
    """Return the batches padded to the same number of rows. A member whose examples did not fit the first shape has more rows."""
    rows = max(len(batch["tokens"]) for batch in batches)
    missing = [[(0, rows - len(batch["tokens"]))] for batch in batches]
    return [{n: np.pad(x, add + [(0, 0)] * (x.ndim - 1)) for n, x in one.items()} for one, add in zip(batches, missing, strict=True)]
