"""What a run consists of once it is built: model, data, optimizer and their schedule, with parameters or with shapes in their place."""

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

RHYTHMS = ("log", "eval", "checkpoint", "patience")  # the durations that the training loop asks for


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model and what trains it."""

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
        """The optimizer of the first phase at its first step."""
        return self.phases[0].optimizer(self.scalars(0))

    def scalars(self, step: int) -> scalars.Scalars:
        """Return the arguments of the training step that follows `step` updates."""
        return scalars.scalars(self.config, self.rates[step])

    @property
    def dropout_key(self) -> jax.Array:
        """uint32 key data from which every step's dropout follows."""
        return jax.random.key_data(named_keys(self.config.seed)["dropout"])

    @functools.cached_property
    def rates(self) -> np.ndarray:
        """The learning rate of each update, float32 [total_steps]. Each by itself would be a handful of small computations."""
        return np.broadcast_to(self.rate(np.arange(self.total_steps)), self.total_steps)

    def position(self, step: int) -> dict[str, int]:
        """Where in the data the run stands after `step` updates."""
        epoch, batch = divmod(step, self.train.steps)
        return {"epoch": epoch, "batch": batch}

    def enter(self, phase: phases.Phase, values: Tree) -> AdaptedModel:
        """The model in `phase`, where `values` are those of all that trains at some time; its training batches bring what its frozen
        stages give, if examples come round again."""
        model = self.model.at(phase.plan, values)
        budget = self.config.prefix_cache_gb
        self.train.hidden = feature_cache.states(model, self.train.tokens, self.layout, budget) if self.keeps_states(phase) else None
        return model

    def keeps_states(self, phase: phases.Phase) -> bool:
        """Whether what the frozen stages give is kept on disk: where it is allowed, and examples come round again in the phase."""
        return self.config.prefix_cache_gb > 0 and phase.stop - phase.start > self.train.steps

    def phase_of(self, step: int) -> phases.Phase:
        """The phase that update number `step` (the first is 1) belongs to."""
        return next(phase for phase in self.phases if step <= phase.stop)

    def steps_of(self, name: str) -> int:
        """The config's duration `name`, in steps."""
        sizes = {"batch_size": self.train.batch_size, "epoch_steps": self.train.steps, "total": self.total_steps}
        return durations.steps(self.config, name, **sizes)

    def schedule_of(self, *names: str) -> Callable[[str, int], bool]:
        """`due(name, step)`: whether the config's duration `name` has come round at `step`. The last step is due for all."""
        every = {name: self.steps_of(name) for name in names}
        return lambda name, step: step == self.total_steps or (every[name] > 0 and step % every[name] == 0)
