"""A run after it is built: model, data, optimizer and schedule. Its parameters are arrays, or shapes where only a plan is wanted."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from research.adapt.adapted_model import AdaptedModel
from research.config import durations
from research.data.batches import Batches
from research.data.examples import Dataset
from research.experiment.initialize import named_keys
from research.parallel import layouts
from research.params.tree import Tree
from research.train import feature_cache, phases, scalars

INTERVALS = ("log", "eval", "checkpoint", "patience")  # config durations that the training loop reads


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model with the data, optimizer and schedule that train it.

    `config` is as requested; `model.config` is the same with the chosen values in place of `auto`.
    """

    config: ConfigDict
    model: AdaptedModel
    data: Dataset
    layout: layouts.Layout
    train: Batches
    dev: Batches
    test: Batches
    total_steps: int
    rate: optax.Schedule
    phases: tuple[phases.Phase, ...]

    @property
    def tx(self) -> optax.GradientTransformation:
        """Return the optimizer of the first phase at its first step."""
        return self.phases[0].optimizer(self.scalars(0))

    def scalars(self, step: int) -> scalars.Scalars:
        """Return the arguments of the training step that follows `step` updates."""
        return scalars.scalars(self.config, self.rates[step])

    @property
    def dropout_key(self) -> jax.Array:
        """Return the uint32 key data from which the dropout keys of all steps are derived."""
        return jax.random.key_data(named_keys(self.config.seed)["dropout"])

    @functools.cached_property
    def rates(self) -> np.ndarray:
        """Return the learning rate of each update, float32 [total_steps]. One call for all steps is cheaper than one call a step."""
        return np.broadcast_to(self.rate(np.arange(self.total_steps)), self.total_steps)

    def position(self, step: int) -> dict[str, int]:
        """Return the epoch, and the batch in the epoch, that follow `step` updates."""
        epoch, batch = divmod(step, self.train.steps)
        return {"epoch": epoch, "batch": batch}

    def batches_of(self, phase: phases.Phase, values: Tree) -> Batches:
        """Return the training batches of `phase`, with the hidden states of frozen stages where these are cached (`keeps_states`).

        `values` are the parameters that are trainable in any phase, as they are when the phase begins. The batches of a run with one
        phase have these states from the start."""
        if len(self.phases) == 1 or not self.keeps_states(phase):
            return self.train
        return feature_cache.with_states(self.model.at(phase.plan, values), self.train, self.layout, self.config.prefix_cache_gb)

    def keeps_states(self, phase: phases.Phase) -> bool:
        """Return whether the frozen stages' hidden states are cached on disk: the config allows it, and the phase is over an epoch long."""
        return self.config.prefix_cache_gb > 0 and phase.stop - phase.start > self.train.steps

    def phase_of(self, step: int) -> phases.Phase:
        """Return the phase of update number `step`, counted from 1."""
        return next(phase for phase in self.phases if step <= phase.stop)

    def steps_of(self, name: str) -> int:
        """Return the config's duration `name` in steps."""
        sizes = {"batch_size": self.train.batch_size, "epoch_steps": self.train.steps, "total": self.total_steps}
        return durations.steps(self.config, name, **sizes)

    def schedule_of(self, *names: str) -> Callable[[str, int], bool]:
        """Return `due(name, step)`: whether `step` is a multiple of the config's duration `name`. The last step is due for all names."""
        every = {name: self.steps_of(name) for name in names}
        return lambda name, step: step == self.total_steps or (every[name] > 0 and step % every[name] == 0)
