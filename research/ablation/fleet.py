"""Training of runs that differ only in the seed and scalars, in lockstep as one vmapped program.

The states of the runs are stacked on a leading axis and stay on the device. Each run writes the same files as if it were trained alone.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from research.ablation import grouping
from research.data.batches import Batches
from research.experiment import build as experiments
from research.experiment import modes
from research.experiment import workdir as workdirs
from research.experiment.experiment import Experiment
from research.parallel.layouts import Layout
from research.params.tree import Tree, count, flatten, merge, split, unflatten
from research.train import loop
from research.train.evaluate import Evaluation, evaluate_all
from research.train.optimizer import carried
from research.train.phases import Phase
from research.train.scalars import structure
from research.train.step import Batch, State, split_microbatches

LARGEST = 5_000_000  # trainable parameters of all members: with more, arithmetic dominates a step and lockstep saves little
MEMORY = 4 * 10**9  # bytes that the steps of all members may store for the backward pass
FEATURE_BYTES = 60  # approximate bytes stored per feature of a stage's output


class Fleet:
    """The `loop.Trainer` of several experiments with the same structure on one device. Lists have one element per member."""

    def __init__(self, members: Sequence[Experiment]):
        self._members, first = members, members[0]
        constants = [flatten(experiment.model.device_constants) for experiment in members]
        shared = {name for name, x in constants[0].items() if all(_equal(x, other[name]) for other in constants[1:])}
        self._shared = {name: jnp.array(x) for name, x in constants[0].items() if name in shared}
        self._per_member = _stack([{name: x for name, x in one.items() if name not in shared} for one in constants])
        self._keys, self._parts = _stack([one.dropout_key for one in members]), tuple(f"{part}/" for part in first.model.frozen)
        function = loop.eval_function(first.model)

        def evaluation(trainable: Tree, frozen: tuple, batch: Batch, axis: None = None):
            shared, per_member = frozen
            return jax.vmap(lambda trainable, per_member: function(trainable, unflatten(shared | per_member), batch))(trainable, per_member)

        self._evaluation = Layout().program(f"fleet eval {structure(first.model)} {sorted(self._per_member)}", evaluation)
        self._programs, self._before = [self._evaluation], self._evaluation.compilations

    @property
    def compilations(self) -> int:
        """Return how many compilations this fleet caused."""
        return sum(program.compilations for program in self._programs) - self._before

    @property
    def flops(self) -> float:
        """Return the FLOPs of the last step of one member."""
        return self._programs[-1].flops / len(self._members)

    def enter(self, phase: Phase, states: Sequence[State | None]) -> None:
        """Begin a phase and stack the states of the members. A member without a state gets its initial state."""
        phase_states, frozen_parts = [], []
        for experiment, full in zip(self._members, states, strict=True):
            full = State(np.zeros((), np.int32), experiment.model.trainable, ()) if full is None else full
            model = experiment.enter(phase, full.trainable)
            fresh = phase.optimizer(experiment.scalars(phase.start)).init(model.trainable)
            phase_states.append(State(full.step, model.trainable, carried(fresh, full.opt_state)))
            frozen_parts.append(split(full.trainable, phase.plan.trained)[1])
        self._state, self._frozen_now, self._model = _stack(phase_states), _stack(frozen_parts), model.without_parameters
        function = loop.train_function(phase, model)

        def step(state: State, frozen: tuple, batch: Batch, key: jax.Array, scalars: Any, active: jax.Array, axis: None = None):
            shared, per_member, frozen_now = frozen

            def one(state, per_member, frozen_now, batch, key, scalars, active):
                new, totals = function(state, merge(unflatten(shared | per_member), frozen_now), batch, key, scalars)
                return jax.tree.map(lambda after, before: jnp.where(active, after, before), new, state), totals

            return jax.vmap(one)(state, per_member, frozen_now, batch, key, scalars, active)

        key = f"fleet train {loop.program_key(self._members[0], model)} {sorted(self._per_member)}"
        program = Layout().program(key, step, donate=(0,))
        self._before += program.compilations
        self._programs.append(program)

    def step(self, number: int, batches: Sequence[Batch | None], active: Sequence[bool]) -> Any:
        some = next(batch for batch in batches if batch is not None)
        accumulate = self._members[0].config.accumulate
        parts = [split_microbatches(x, accumulate, Layout()) for x in _same_rows([some if x is None else x for x in batches])]
        scalars = jax.tree.map(lambda *x: np.stack(x), *(experiment.scalars(number - 1) for experiment in self._members))
        frozen = self._shared, self._per_member, self._frozen_now
        batch = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        self._state, totals = self._programs[-1](self._state, frozen, batch, self._keys, scalars, np.asarray(active))
        return totals

    def totals(self, totals: Any) -> list[dict[str, np.ndarray]]:
        return _members(jax.tree.map(lambda x: np.asarray(x, np.float64), totals), len(self._members))

    def eval_params(self) -> Tree:
        params = jax.vmap(self._model.eval_params)(self._state.trainable, self._state.opt_state)
        return merge(params, self._frozen_now)

    def evaluate(self, params: Tree, batches: Batches) -> list[Evaluation]:
        frozen = tuple({name: x for name, x in tree.items() if name.startswith(self._parts)} for tree in (self._shared, self._per_member))
        fetch = lambda out, sums: (np.asarray(out), _members(jax.tree.map(np.asarray, sums), len(self._members)))  # noqa: E731
        return evaluate_all(lambda batch: self._evaluation(params, frozen, batch), batches, fetch)

    def full_state(self, run: int, params: Tree | None = None) -> State:
        trainable = merge(self._state.trainable, self._frozen_now) if params is None else params
        return jax.tree.map(lambda x: x[run], self._state.replace(trainable=trainable))

    def replicated(self, trees: Sequence[Tree | None]) -> Tree:
        """Return the members' parameters in the form that `evaluate` takes. A member that is None gets those of another member."""
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


Outcome = dict[str, Any] | Exception  # the contents of result.json, or the error of the run


def run(configs: dict[str, ConfigDict], workdir: Path, say: Callable[[str], None]) -> Iterator[tuple[str, Outcome, float]]:
    """Train the runs, each in its folder of `workdir`, in lockstep if that is faster, and report the choice to `say`.

    Yields the id, the outcome and the seconds of each unfinished run when it ends. Runs trained together have equal shares of the
    seconds. A finished run keeps its place in the fleet, so that the other runs have the same results on resuming.
    """
    begin, build, built, failed = time.perf_counter(), _builder(), {}, {}
    unfinished = [run_id for run_id in configs if not (workdir / run_id / "result.json").exists()]
    for run_id, config in configs.items():
        try:
            built[run_id] = build(workdirs.with_recorded_values(workdir / run_id, config))
        except Exception as error:
            failed[run_id] = error
    yield from ((run_id, failed[run_id], 0.0) for run_id in unfinished if run_id in failed)
    todo = [run_id for run_id in unfinished if run_id in built]
    if len(built) > 1 and todo:
        if why := objection(list(built.values())):
            say(f"{len(todo)} runs one after the other: {why}")
        else:
            say(f"{len(built)} runs as one program")
            try:
                ended = _together(configs, built, todo, workdir)
            except Exception as error:
                say(f"{len(todo)} runs one after the other: together they failed: {type(error).__name__}: {error}")
            else:
                yield from ((run_id, outcome, (time.perf_counter() - begin) / len(ended)) for run_id, outcome in ended.items())
                return
    for run_id in todo:
        yield run_id, _attempt(lambda run_id=run_id: _alone(configs[run_id], workdir / run_id, built[run_id])), time.perf_counter() - begin
        begin = time.perf_counter()


def _builder() -> Callable[[ConfigDict], Experiment]:
    """Return a function that builds experiments. Experiments share all that does not depend on the seed or scalars."""
    makers: dict[str, Callable[[ConfigDict], Experiment]] = {}

    def build(config: ConfigDict) -> Experiment:
        key = grouping.structure(config)
        if key not in makers:
            makers[key] = experiments.experiments_of(config)
        return makers[key](config)

    return build


def _alone(config: ConfigDict, folder: Path, experiment: Experiment) -> dict[str, Any]:
    return modes.run(config, folder, Console(quiet=True), build=lambda _: experiment)


def _attempt(action: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        return action()
    except Exception as error:  # any error: the other runs must not be lost
        return error


def _together(configs: dict[str, ConfigDict], built: dict[str, Experiment], unfinished: Sequence[str], workdir: Path) -> dict[str, Outcome]:
    """Train the experiments as one program and return the outcomes of the unfinished ones."""
    ended: dict[str, Outcome] = {}
    with contextlib.ExitStack() as stack:
        fleet, started = Fleet(list(built.values())), {}
        for run_id, experiment in built.items():
            if run_id not in unfinished:
                continue
            try:
                stack.enter_context(workdirs.claimed(workdir / run_id, configs[run_id]))
                started[run_id] = modes.begin(experiment, workdir / run_id, Console(quiet=True))
            except Exception as error:
                ended[run_id] = error
        runs = [started.get(run_id) for run_id in built]
        if started:
            loop.fit(runs, fleet)
            ended |= {run_id: one.error for run_id, one in started.items() if one.error}
        if any(one is not None and one.error is None for one in runs):
            for run_id, one, measured in zip(built, runs, modes.measure(runs, fleet), strict=True):
                if measured is not None:
                    finish = lambda one=one, m=measured, c=configs[run_id]: modes.finish(one, m, c, fleet.compilations, list(built))  # noqa: E731
                    ended[run_id] = _attempt(finish)
    return ended


def objection(members: Sequence[Experiment]) -> str:
    """Return the reason to train these experiments one after the other, or "" if they should be trained together."""
    first = members[0]
    if first.layout != Layout():
        return "they run on several devices"
    below, stages = first.model.plan.frozen_stages(first.model.encoder.stages), first.model.encoder.stages
    if jax.default_backend() == "cpu" and below < len(stages):
        return "on a CPU a step of each takes the time of its own work, and there is little to share"
    if len({getattr(one.dev.hidden, "filename", None) for one in members}) > 1:
        return "their frozen parameters differ"
    trainable = count(first.model.trainable)
    if trainable * len(members) > LARGEST:
        return f"each trains {trainable:,} parameters, and there is little to share"
    stored = max(shape.rows * shape.length for shape in first.train.shapes) * sum(first.model.widths[below:]) * FEATURE_BYTES * len(members)
    if stored > MEMORY:
        return f"together they would keep about {stored / 1e9:.1f} GB in a step, {MEMORY / 1e9:g} at most are wanted"
    return ""
