"""The device's side of the training loop: the state of runs, and the compiled programs that train and evaluate them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from research.data.batches import Batches
from research.parallel.layouts import Layout
from research.parallel.program import CompilationCount, Program
from research.params.tree import Tree, merge, split
from research.train.evaluate import Evaluation, evaluate
from research.train.optimizer import carried
from research.train.phases import Phase
from research.train.scalars import Scalars, structure, with_scalars
from research.train.step import Batch, State, eval_step, split_microbatches, train_step


class Trainer(Protocol):
    """The interface of the loop to the device. Lists have one element per run."""

    flops: float
    compilations: int

    def enter(self, phase: Phase, states: Sequence[State | None]) -> None:
        """Begin a phase. The states hold all parameters that train in any phase; None stands for a run that has ended already."""

    def step(self, number: int, batches: Sequence[Batch], active: Sequence[bool]) -> Any:
        """Do update `number`, counted from 1, of the active runs. Return the stats on the device."""

    def stats(self, stats: Any) -> list[dict[str, np.ndarray]]:
        """Wait for the stats of a step and return them on the host, as float64."""

    def eval_params(self) -> Tree:
        """Return the parameters to evaluate, on the device."""

    def placed(self, trees: Sequence[Tree | None]) -> Tree:
        """Return parameters on the host, one tree for each run, on the device and in the form of `eval_params`. In place of None, the
        parameters of another run are used."""

    def evaluate(self, params: Tree, batches: Batches) -> list[Evaluation]:
        """Evaluate parameters in the form of `eval_params` on all examples."""

    def full_state(self, run: int, params: Tree | None = None) -> State:
        """Return the state of a run with all parameters that train in any phase, or with the run's part of `params` instead."""


class SingleTrainer:
    """The `Trainer` of one run, on one device or with data parallelism on several, as the layout says."""

    def __init__(self, experiment: Any):
        self._experiment, self._layout = experiment, experiment.layout
        self._constants = self._layout.place(experiment.model.device_constants)
        self._evaluation = eval_program(experiment.model, self._layout)
        self._count = CompilationCount()
        self._count.add(self._evaluation)

    @property
    def compilations(self) -> int:
        """Return how many compilations this run caused."""
        return self._count.total

    @property
    def flops(self) -> float:
        """Return the FLOPs of the last step."""
        return self._program.flops

    def enter(self, phase: Phase, states: Sequence[State]) -> None:
        """Begin a phase. Newly unfrozen parameters get fresh optimizer state; newly frozen ones keep their values."""
        experiment = self._experiment
        model, state, frozen_now = phase_state(experiment, phase, states[0])
        self._state, self._frozen_now, self._key = (self._layout.place(x) for x in (state, frozen_now, experiment.dropout_key))
        self._frozen, self._model = merge(self._constants, self._frozen_now), model.without_parameters
        self._program = self._count.add(train_program(experiment, phase, model))

    def step(self, number: int, batches: Sequence[Batch], active: Sequence[bool]) -> Any:
        batch = split_microbatches(batches[0], self._experiment.config.accumulate, self._layout)
        scalars = self._experiment.scalars(number - 1)
        self._state, stats = self._program(self._state, self._frozen, batch, self._key, scalars)
        return stats

    def stats(self, stats: Any) -> list[dict[str, np.ndarray]]:
        return [jax.tree.map(lambda x: np.asarray(x, np.float64), self._layout.first(stats))]

    def eval_params(self) -> Tree:
        return merge(self._model.eval_params(self._state.trainable, self._state.opt_state), self._frozen_now)

    def evaluate(self, params: Tree, batches: Batches) -> list[Evaluation]:
        frozen = {part: self._constants[part] for part in self._experiment.model.frozen}
        return [evaluate(self._evaluation, params, frozen, batches, self._layout, self._experiment.model.task.outputs_per)]

    def full_state(self, run: int, params: Tree | None = None) -> State:
        trainable = merge(self._state.trainable, self._frozen_now) if params is None else params
        return self._layout.first(self._state.replace(trainable=trainable))

    def placed(self, trees: Sequence[Tree | None]) -> Tree:
        return self._layout.replicate(trees[0])


def phase_state(experiment: Any, phase: Phase, full: State) -> tuple[Any, State, Tree]:
    """Return the model in a phase, its state, and the parameters that train in another phase only, from a state of all parameters."""
    model = experiment.model.at(phase.plan, full.trainable)
    fresh = phase.optimizer(experiment.scalars(phase.start)).init(model.trainable)
    state = State(full.step, model.trainable, carried(fresh, full.opt_state))
    return model, state, split(full.trainable, phase.plan.trained)[1]


def eval_program(model: Any, layout: Layout) -> Program:
    """Return the compiled evaluation of `model`, which models of the same structure share."""
    return layout.program(f"eval {structure(model)}", eval_function(model))


def eval_function(model: Any) -> Callable:
    """Return the function that evaluates one batch: (trainable, frozen, batch, axis) -> (outputs, stats)."""
    return functools.partial(eval_step, model=model.without_parameters)


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
    """Return the function that does one update in a phase: (state, frozen, batch, key, scalars, axis) -> (state, stats)."""
    bare, optimizer = model.without_parameters, phase.optimizer

    def step(state: State, frozen: Tree, batch: Batch, key: jax.Array, scalars: Scalars, axis: str | None = None):
        now = with_scalars(bare, scalars)
        wrap, tx = now.recipe.hook.wrap_grad, optimizer(scalars)
        return train_step(state, frozen, batch, key, gradient=now.gradient, grad_transform=wrap, tx=tx, axis=axis)

    return step
