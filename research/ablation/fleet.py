"""Runs of a sweep that differ in their seed and in scalars alone, trained in lockstep as one vmapped program.

The states of the members are stacked once on a leading axis that stays on the device. Each writes its workdir as if it ran alone.
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

LARGEST = 5_000_000  # trainable parameters of all members: beyond, a step's time is the work itself, which is not shared
MEMORY = 4 * 10**9  # bytes that all members' steps may keep for the backward pass
KEPT = 60  # bytes of them for each feature of a stage's output, about


class Fleet:
    """The `loop.Trainer` of several experiments of one structure on one device. All lists have an element for each member."""

    def __init__(self, members: Sequence[Experiment]):
        self._members, first = members, members[0]
        constants = [flatten(e.model.device_constants) for e in members]
        shared = {name for name, x in constants[0].items() if all(_equal(x, other[name]) for other in constants[1:])}
        self._shared = {name: jnp.array(x) for name, x in constants[0].items() if name in shared}
        self._own = _stack([{name: x for name, x in one.items() if name not in shared} for one in constants])
        self._keys, self._parts = _stack([e.dropout_key for e in members]), tuple(f"{part}/" for part in first.model.frozen)
        function = loop.eval_function(first.model)

        def evaluation(trainable: Tree, frozen: tuple, batch: Batch, axis: None = None):
            shared, own = frozen
            return jax.vmap(lambda trainable, own: function(trainable, unflatten(shared | own), batch))(trainable, own)

        self._evaluation = Layout().program(f"fleet eval {structure(first.model)} {sorted(self._own)}", evaluation)
        self._programs, self._before = [self._evaluation], self._evaluation.compilations

    @property
    def compilations(self) -> int:
        """How often programs have been compiled for this fleet."""
        return sum(program.compilations for program in self._programs) - self._before

    @property
    def flops(self) -> float:
        """FLOPs of the last step of one member."""
        return self._programs[-1].flops / len(self._members)

    def enter(self, phase: Phase, states: Sequence[State | None]) -> None:
        """Stack the members' states for a phase; a member without a state gets that before training."""
        now, closed = [], []
        for e, whole in zip(self._members, states, strict=True):
            whole = State(np.zeros((), np.int32), e.model.trainable, ()) if whole is None else whole
            model = e.enter(phase, whole.trainable)
            fresh = phase.optimizer(e.scalars(phase.start)).init(model.trainable)
            now.append(State(whole.step, model.trainable, carried(fresh, whole.opt_state)))
            closed.append(split(whole.trainable, phase.plan.trained)[1])
        self._state, self._frozen_now, self._model = _stack(now), _stack(closed), model.without_parameters
        function = loop.train_function(phase, model)

        def step(state: State, frozen: tuple, batch: Batch, key: jax.Array, scalars: Any, active: jax.Array, axis: None = None):
            shared, own, frozen_now = frozen

            def one(state, own, frozen_now, batch, key, scalars, active):
                new, totals = function(state, merge(unflatten(shared | own), frozen_now), batch, key, scalars)
                return jax.tree.map(lambda after, before: jnp.where(active, after, before), new, state), totals

            return jax.vmap(one)(state, own, frozen_now, batch, key, scalars, active)

        key = f"fleet train {loop.program_key(self._members[0], model)} {sorted(self._own)}"
        program = Layout().program(key, step, donate=(0,))
        self._before += program.compilations
        self._programs.append(program)

    def step(self, number: int, batches: Sequence[Batch | None], active: Sequence[bool]) -> Any:
        some = next(batch for batch in batches if batch is not None)
        accumulate = self._members[0].config.accumulate
        parts = [split_microbatches(x, accumulate, Layout()) for x in _same_rows([some if x is None else x for x in batches])]
        scalars = jax.tree.map(lambda *x: np.stack(x), *(e.scalars(number - 1) for e in self._members))
        frozen = self._shared, self._own, self._frozen_now
        batch = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        self._state, totals = self._programs[-1](self._state, frozen, batch, self._keys, scalars, np.asarray(active))
        return totals

    def totals(self, totals: Any) -> list[dict[str, np.ndarray]]:
        return _members(jax.tree.map(lambda x: np.asarray(x, np.float64), totals), len(self._members))

    def eval_params(self) -> Tree:
        params = jax.vmap(self._model.eval_params)(self._state.trainable, self._state.opt_state)
        return merge(params, self._frozen_now)

    def evaluate(self, params: Tree, batches: Batches) -> list[Evaluation]:
        frozen = tuple({name: x for name, x in tree.items() if name.startswith(self._parts)} for tree in (self._shared, self._own))
        fetch = lambda out, sums: (np.asarray(out), _members(jax.tree.map(np.asarray, sums), len(self._members)))  # noqa: E731
        return evaluate_all(lambda batch: self._evaluation(params, frozen, batch), batches, fetch)

    def full_state(self, run: int, params: Tree | None = None) -> State:
        trainable = merge(self._state.trainable, self._frozen_now) if params is None else params
        return jax.tree.map(lambda x: x[run], self._state.replace(trainable=trainable))

    def replicated(self, trees: Sequence[Tree | None]) -> Tree:
        """Return the members' parameters as `evaluate` takes them; a member that is None gets another's."""
        some = next(tree for tree in trees if tree is not None)
        return _stack([some if tree is None else tree for tree in trees])


def _equal(a: Any, b: Any) -> bool:
    return a is b or (a.shape == b.shape and np.array_equal(a, b))


def _stack(trees: Sequence[Tree]) -> Tree:
    """Stack the leaves of equal trees on a new leading axis, on the device."""
    return jax.tree.map(lambda *x: jnp.asarray(np.stack([np.asarray(one) for one in x])), *trees)


def _members(tree: Any, size: int) -> list[Any]:
    """Cut a tree with a leading axis on the host into one tree a member."""
    return [jax.tree.map(lambda x: x[i], tree) for i in range(size)]  # noqa: B023


def _same_rows(batches: Sequence[Batch]) -> list[Batch]:
    """Return batches of as many rows as the longest has: a member whose examples did not fit has more of them than the others."""
    rows = max(len(batch["tokens"]) for batch in batches)
    missing = [[(0, rows - len(batch["tokens"]))] for batch in batches]
    return [{n: np.pad(x, add + [(0, 0)] * (x.ndim - 1)) for n, x in one.items()} for one, add in zip(batches, missing, strict=True)]


Outcome = dict[str, Any] | Exception  # the contents of result.json, or what went wrong


def run(configs: dict[str, ConfigDict], workdir: Path, say: Callable[[str], None]) -> Iterator[tuple[str, Outcome, float]]:
    """Train the runs, each in its folder of `workdir`, together where that is faster; `say` is told which.

    Yields the id, the outcome and the seconds of each run that was not finished, as they end; of runs trained together each has an equal
    share of the seconds. A finished run keeps its place in the fleet, so that the others compute what they would compute beside it.
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
    """Return a function that builds experiments, and shares between them what does not depend on the seed or on scalars."""
    makers: dict[str, Callable[[ConfigDict], Experiment]] = {}

    def build(config: ConfigDict) -> Experiment:
        kind = grouping.structure(config)
        if kind not in makers:
            makers[kind] = experiments.experiments_of(config)
        return makers[kind](config)

    return build


def _alone(config: ConfigDict, folder: Path, experiment: Experiment) -> dict[str, Any]:
    return modes.run(config, folder, Console(quiet=True), build=lambda _: experiment)


def _attempt(action: Callable[[], dict[str, Any]]) -> Outcome:
    try:
        return action()
    except Exception as error:  # whatever it was: the other runs are not to be lost
        return error


def _together(configs: dict[str, ConfigDict], built: dict[str, Experiment], unfinished: Sequence[str], workdir: Path) -> dict[str, Outcome]:
    """Train the experiments as one program and return what became of the unfinished ones."""
    ended: dict[str, Outcome] = {}
    with contextlib.ExitStack() as stack:
        fleet, started = Fleet(list(built.values())), {}
        for run_id, e in built.items():
            if run_id not in unfinished:
                continue
            try:
                stack.enter_context(workdirs.claimed(workdir / run_id, configs[run_id]))
                started[run_id] = modes.begin(e, workdir / run_id, Console(quiet=True))
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
    """Return why these experiments are better trained one after the other; empty where they are not."""
    e = members[0]
    if e.layout != Layout():
        return "they run on several devices"
    below, stages = e.model.plan.frozen_stages(e.model.encoder.stages), e.model.encoder.stages
    if jax.default_backend() == "cpu" and below < len(stages):
        return "on a CPU a step of each takes the time of its own work, and there is little to share"
    if len({getattr(one.dev.hidden, "filename", None) for one in members}) > 1:
        return "their frozen parameters differ"
    trains = count(e.model.trainable)
    if trains * len(members) > LARGEST:
        return f"each trains {trains:,} parameters, and there is little to share"
    kept = max(shape.rows * shape.length for shape in e.train.shapes) * sum(e.model.widths[below:]) * KEPT * len(members)
    if kept > MEMORY:
        return f"together they would keep about {kept / 1e9:.1f} GB in a step, {MEMORY / 1e9:g} at most are wanted"
    return ""
