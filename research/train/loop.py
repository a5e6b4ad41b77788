"""The training loop, over the updates of one run or of several runs in lockstep."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from research.data.batches import Batches
from research.errors import InputError
from research.parallel.layouts import Layout
from research.parallel.program import Program
from research.params.tree import Tree, merge, split
from research.train.evaluate import Evaluation, evaluate
from research.train.optimizer import carried
from research.train.phases import Phase
from research.train.run import TrainingRun
from research.train.scalars import Scalars, structure, with_scalars
from research.train.step import Batch, State, eval_step, split_microbatches, train_step


class Trainer(Protocol):
    """The interface of the loop to the device. Lists have one element per run."""

    flops: float
    compilations: int

    def enter(self, phase: Phase, states: Sequence[State]) -> None:
        """Begin a phase. The states hold all parameters that train in any phase."""

    def step(self, number: int, batches: Sequence[Batch], active: Sequence[bool]) -> Any:
        """Do update `number`, counted from 1, of the active runs. Return the totals on the device."""

    def totals(self, totals: Any) -> list[dict[str, np.ndarray]]:
        """Wait for the totals of a step and return them on the host, as float64."""

    def eval_params(self) -> Tree:
        """Return the parameters to evaluate, on the device."""

    def evaluate(self, params: Tree, batches: Batches) -> list[Evaluation]:
        """Evaluate the parameters that `eval_params` returned on all examples."""

    def full_state(self, run: int, params: Tree | None = None) -> State:
        """Return the state of a run with all parameters that train in any phase, or with the run's part of `params` instead."""


def fit(runs: Sequence[TrainingRun | None], trainer: Trainer) -> None:
    """Train the runs to their end. None stands for a run that has ended already.

    All runs have the same phases and durations. The order in each step is fixed: batch, update, log, evaluate, save. So a checkpoint
    covers all earlier work, and a run that is killed and resumed gives the same result. If a run diverges, its `error` is set; if it
    is the only run, InputError is raised.
    """
    experiment = next(run.experiment for run in runs if run)
    with contextlib.ExitStack() as stack:
        for run in filter(None, runs):
            stack.enter_context(run.telemetry)
        for number, phase in enumerate(experiment.phases, 1):
            _train(runs, trainer, phase, f"training, phase {number}" if len(experiment.phases) > 1 else "training")


def _train(runs: Sequence[TrainingRun | None], trainer: Trainer, phase: Phase, title: str) -> None:
    """Train the runs through one phase."""
    training = lambda run: run is not None and not run.ended and run.start < phase.stop  # noqa: E731
    if not any(map(training, runs)):
        return
    experiment = next(run.experiment for run in runs if training(run))
    due, begin = experiment.schedule_of("log", "eval", "checkpoint"), max(phase.start, min(run.start for run in runs if training(run)))
    trainer.enter(phase, [None if run is None else run.state for run in runs])
    streams = [run.experiment.train.stream(begin) if training(run) else None for run in runs]
    batches: list[Batch | None] = [None] * len(runs)
    pending: tuple | None = None  # totals are fetched one step late, while the device computes the next step

    def fetch() -> None:
        nonlocal pending
        if pending is not None:
            step, active, totals = pending
            for run, trains, run_totals in zip(runs, active, trainer.totals(totals), strict=True):
                if trains and run.error is None:
                    _attempt(run, lambda run=run, run_totals=run_totals: run.metrics.add(step, run_totals), alone=len(runs) == 1)
        pending = None

    def each(active: Sequence[bool]) -> list[tuple[int, TrainingRun]]:
        return [(i, run) for i, (run, trains) in enumerate(zip(runs, active, strict=True)) if trains and run.error is None]

    for step in range(begin + 1, phase.stop + 1):
        if not any(map(training, runs)):
            break
        active = [training(run) and run.start < step for run in runs]
        batches = [next(stream) if training(run) else batch for run, stream, batch in zip(runs, streams, batches, strict=True)]
        for i, run in each(active):
            run.meter.batch_ready(batches[i])
        totals = trainer.step(step, batches, active)
        fetch()
        pending = step, active, totals
        if step == begin + 1:
            jax.block_until_ready(totals)  # the first step's time includes the compilation
        due_now = {name: due(name, step) for name in ("log", "eval", "checkpoint")}
        if any(due_now.values()):
            fetch()  # waits for the step, so that training time excludes what follows
        for _, run in each(active):
            if any(due_now.values()):
                run.telemetry.write(step, scores := run.metrics.scores())
            run.meter.step_done(trainer.flops, compiled=step == begin + 1)
            run.telemetry.show(title, step, run.metrics.note)
            if due_now["log"]:
                run.telemetry.log(title, step, scores, run.meter.counts())
        if due_now["eval"]:
            _evaluate(step, each(active), trainer, experiment.dev, alone=len(runs) == 1)
        for i, run in each(active):
            if due_now["checkpoint"] or run.stopped:
                run.save(step, trainer.full_state(i))
            run.meter.exclude()
            if run.stopped:
                title_of_metric = run.experiment.model.metric_title
                run.telemetry.say(f"step {step}: stopped, as dev {title_of_metric} has not been better since step {run.best.step}")
    for i, run in enumerate(runs):
        if training(run):
            run.state = trainer.full_state(i)


def _evaluate(step: int, runs: Sequence[tuple[int, TrainingRun]], trainer: Trainer, dev: Batches, alone: bool) -> None:
    """Evaluate the runs on dev after update `step`. Each comes with its index in the trainer's lists."""
    for _, run in runs:
        run.telemetry.show("evaluating")
    params = trainer.eval_params()
    evaluations = trainer.evaluate(params, dev)
    for i, run in runs:

        def judge(i: int = i, run: TrainingRun = run) -> None:
            scores = run.experiment.model.scores(evaluations[i].checked().totals)
            run.judge(step, scores, lambda: trainer.full_state(i, params))

        _attempt(run, judge, alone)


def _attempt(run: TrainingRun, action: Callable[[], None], alone: bool) -> None:
    """Call `action` for a run. An InputError is stored as `run.error`, or raised if there is no other run."""
    try:
        action()
    except InputError as error:
        if alone:
            raise
        run.error = error


class SingleTrainer:
    """The `Trainer` of one run, on one device or with data parallelism on several, as the layout says."""

    def __init__(self, experiment: Any):
        self._experiment, self._layout = experiment, experiment.layout
        self._constants = self._layout.place(experiment.model.device_constants)
        self._evaluation = eval_program(experiment.model, self._layout)
        self._counted: dict[int, tuple[Program, int]] = {}  # programs, and how often each was compiled before this run
        self._count(self._evaluation)

    def _count(self, program: Program) -> None:
        self._counted.setdefault(id(program), (program, program.compilations))

    @property
    def compilations(self) -> int:
        """Return how many compilations this run caused."""
        return sum(program.compilations - before for program, before in self._counted.values())

    @property
    def flops(self) -> float:
        """Return the FLOPs of the last step."""
        return self._program.flops

    def enter(self, phase: Phase, states: Sequence[State]) -> None:
        """Begin a phase. Newly unfrozen parameters get fresh optimizer state; newly frozen ones keep their values."""
        (full,), experiment = states, self._experiment
        model = experiment.enter(phase, full.trainable)
        fresh = phase.optimizer(experiment.scalars(phase.start)).init(model.trainable)
        state = State(full.step, model.trainable, carried(fresh, full.opt_state))
        frozen_now = split(full.trainable, phase.plan.trained)[1]
        self._state, self._frozen_now, self._key = (self._layout.place(x) for x in (state, frozen_now, experiment.dropout_key))
        self._frozen, self._model = merge(self._constants, self._frozen_now), model.without_parameters
        self._program = train_program(experiment, phase, model)
        self._count(self._program)

    def step(self, number: int, batches: Sequence[Batch], active: Sequence[bool]) -> Any:
        batch = split_microbatches(batches[0], self._experiment.config.accumulate, self._layout)
        scalars = self._experiment.scalars(number - 1)
        self._state, totals = self._program(self._state, self._frozen, batch, self._key, scalars)
        return totals

    def totals(self, totals: Any) -> list[dict[str, np.ndarray]]:
        return [jax.tree.map(lambda x: np.asarray(x, np.float64), self._layout.first(totals))]

    def eval_params(self) -> Tree:
        return merge(self._model.eval_params(self._state.trainable, self._state.opt_state), self._frozen_now)

    def evaluate(self, params: Tree, batches: Batches) -> list[Evaluation]:
        frozen = {part: self._constants[part] for part in self._experiment.model.frozen}
        return [evaluate(self._evaluation, params, frozen, batches, self._layout)]

    def full_state(self, run: int, params: Tree | None = None) -> State:
        trainable = merge(self._state.trainable, self._frozen_now) if params is None else params
        return self._layout.first(self._state.replace(trainable=trainable))

    def replicated(self, trees: Sequence[Tree]) -> Tree:
        """Return the parameters of the run in the form that `evaluate` takes."""
        return self._layout.replicate(trees[0])


def eval_program(model: Any, layout: Layout) -> Program:
    """Return the compiled evaluation of `model`, which models of the same structure share."""
    return layout.program(f"eval {structure(model)}", eval_function(model))


def eval_function(model: Any) -> Callable:
    """Return the function that evaluates one batch: (trainable, frozen, batch, axis) -> (logits, totals)."""
    bare = model.without_parameters
    return functools.partial(eval_step, logits_fn=bare.logits, totals_fn=bare.kind.totals)


def train_program(experiment: Any, phase: Phase | None = None, model: Any = None) -> Program:
    """Return the compiled training step of `phase` (by default the first), which runs of the same structure share.

    `model` is the model in that phase. The step takes (state, frozen, batch, key, scalars) and donates the buffers of the state.
    """
    phase, model = phase or experiment.phases[0], model or experiment.model.at(experiment.phases[0].plan, experiment.model.trainable)
    key, step = f"train {program_key(experiment, model)}", train_function(phase, model)
    return experiment.layout.program(key, step, donate=(0,), in_axes=(0, 0, 0, 0, None))


def program_key(experiment: Any, model: Any) -> str:
    """Return a key of all that the training step of a model depends on, except the shapes of its batches."""
    return f"{structure(model)} {experiment.total_steps if model.recipe.hooks else 0}"  # hooks such as SWA use the total


def train_function(phase: Phase, model: Any) -> Callable:
    """Return the function that does one update in a phase: (state, frozen, batch, key, scalars, axis) -> (state, totals)."""
    bare, optimizer = model.without_parameters, phase.optimizer

    def step(state: State, frozen: Tree, batch: Batch, key: jax.Array, scalars: Scalars, axis: str | None = None):
        now = with_scalars(bare, scalars)
        wrap = lambda gradient: functools.reduce(lambda g, hook: hook.wrap_grad(g), now.recipe.hooks, gradient)  # noqa: E731
        tx = optimizer(scalars)
        return train_step(state, frozen, batch, key, gradient=now.gradient, grad_transform=wrap, tx=tx, axis=axis)

    return step
