"""Methods that evaluate and save an average of the trainable parameters over training steps.

The training steps do not change. The average is part of the optimizer state, so it is saved, resumed and carried from phase to phase.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from research.adapt.base import Method, TrainingHook
from research.adapt.regularize import check
from research.params.tree import Tree

Stages = tuple[str, ...]


class Average(NamedTuple):
    """Optimizer state: `count`, an int32 scalar, is the number of updates made; `average` is a tree like the parameters."""

    count: jax.Array
    average: Tree


def averaging(tx: optax.GradientTransformation, rate: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformation:
    """Return `tx`, extended by average += rate(t) * (new - average) after each update t = 1, 2, ..., with the updated parameters `new`."""

    def init(params: Tree) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params))  # a copy: a step donates the parameters' buffers

    def update(updates: Tree, state: Average, params: Tree | None = None):
        count = state.count + 1
        r, new = rate(count), optax.apply_updates(params, updates)
        # At rate 1 the average is exactly `new`; a + (new - a) is not, because of rounding.
        average = jax.tree.map(lambda a, w: jnp.where(r < 1.0, a + r * (w - a), w), state.average, new)
        return updates, Average(count, average)

    return optax.chain(tx, optax.GradientTransformation(init, update))


def average_in(opt_state: Any) -> Tree:
    """Return the average from the state of an optimizer that contains one at any depth."""
    is_average = lambda x: isinstance(x, Average)  # noqa: E731
    return next(x.average for x in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(x))


@dataclasses.dataclass(frozen=True)
class Ema(TrainingHook):
    """Exponential moving average: d * average + (1 - d) * w after each update t = 0, 1, ..., with d = min(decay, (1 + t) / (10 + t))."""

    decay: float
    name = "ema"

    def optimizer(self, tx, config, total):
        def rate(count: jax.Array) -> jax.Array:
            t = count.astype(jnp.float32) - 1.0
            return 1.0 - jnp.minimum(self.decay, (1.0 + t) / (10.0 + t))

        return averaging(tx, rate)

    def eval_params(self, trainable, opt_state):
        return average_in(opt_state)


def ema(stages: Stages, config: Any) -> Method:
    """Evaluate and save an exponential moving average of the trainable parameters (Polyak & Juditsky 1992; Tarvainen & Valpola 2017).

    The decay is `ema_decay`, 0.999, and lower in the first steps: min(decay, (1 + t) / (10 + t)), the warm-up of TensorFlow's moving
    averages. Parameters that a later phase freezes keep their last values, not their average. Costs a copy of the trainable parameters.
    """
    check("ema_decay", config.ema_decay, 0 <= config.ema_decay < 1, "at least 0 and less than 1")
    return Method(hooks=(Ema(config.ema_decay),))


@dataclasses.dataclass(frozen=True)
class Swa(TrainingHook):
    """Mean of the parameters w over the last `percent` of the updates; before these, w."""

    percent: float
    name = "swa"

    def optimizer(self, tx, config, total):
        start = total - max(round(total * self.percent / 100), 1)
        return averaging(tx, lambda count: 1.0 / jnp.maximum(count - start, 1).astype(jnp.float32))

    def eval_params(self, trainable, opt_state):
        return average_in(opt_state)


def swa(stages: Stages, config: Any) -> Method:
    """Evaluate and save the unweighted mean of the trainable parameters over the last `swa_percent` of the steps (Izmailov et al. 2018).

    The default is 25%, as in the paper. There the learning rate is constant or cyclic during these steps: `schedule=constant` comes
    nearest to it. With a learning rate that falls to 0 the mean is closer to the last parameters. The mean is over steps, the paper's
    over epochs. Costs a copy of the trainable parameters.
    """
    check("swa_percent", config.swa_percent, 0 < config.swa_percent <= 100, "over 0 and at most 100")
    return Method(hooks=(Swa(config.swa_percent),))
