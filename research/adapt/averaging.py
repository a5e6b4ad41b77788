"""Methods that keep an average of the parameters over training. The steps are those of any other run; only what is evaluated and kept
differs. The average stands in the optimizer's state: it is saved, resumed and carried from phase to phase with it.
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
    """`count` int32, the updates made; `average`, in the shapes of the parameters."""

    count: jax.Array
    average: Tree


def averaging(tx: optax.GradientTransformation, rate: Callable[[jax.Array], jax.Array]) -> optax.GradientTransformation:
    """`tx`, followed by average += rate(t) * (new - average), where t (from 1) counts updates and `new` is what update t leads to."""

    def init(params: Tree) -> Average:
        return Average(jnp.zeros((), jnp.int32), jax.tree.map(jnp.array, params))  # a copy: a step takes over the parameters' buffers

    def update(updates: Tree, state: Average, params: Tree | None = None):
        count = state.count + 1
        r, new = rate(count), optax.apply_updates(params, updates)
        # At rate 1 the new parameters themselves, which a + (new - a) is not quite.
        average = jax.tree.map(lambda a, w: jnp.where(r < 1.0, a + r * (w - a), w), state.average, new)
        return updates, Average(count, average)

    return optax.chain(tx, optax.GradientTransformation(init, update))


def average_in(opt_state: Any) -> Tree:
    """The average in the state of such an optimizer, wherever in it."""
    is_average = lambda x: isinstance(x, Average)  # noqa: E731
    return next(x.average for x in jax.tree.leaves(opt_state, is_leaf=is_average) if is_average(x))


@dataclasses.dataclass(frozen=True)
class Ema(TrainingHook):
    """average = d * average + (1 - d) * w after each update t = 0, 1, ..., with d = min(decay, (1 + t) / (10 + t))."""

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
    """An exponential moving average of what trains is evaluated and kept (Polyak & Juditsky 1992; Tarvainen & Valpola 2017).

    `ema_decay` is 0.999, less in the first steps: min(decay, (1 + t) / (10 + t)), the warm-up of TensorFlow's moving averages. What a
    phase closes stays as it was last, not as its average. Costs a copy of what trains.
    """
    check("ema_decay", config.ema_decay, 0 <= config.ema_decay < 1, "at least 0 and less than 1")
    return Method(hooks=(Ema(config.ema_decay),))


@dataclasses.dataclass(frozen=True)
class Swa(TrainingHook):
    """The mean of w after each of the last `percent` of the updates; before, w itself."""

    percent: float
    name = "swa"

    def optimizer(self, tx, config, total):
        before = total - max(round(total * self.percent / 100), 1)
        return averaging(tx, lambda count: 1.0 / jnp.maximum(count - before, 1).astype(jnp.float32))

    def eval_params(self, trainable, opt_state):
        return average_in(opt_state)


def swa(stages: Stages, config: Any) -> Method:
    """The equal average of what trains over the last `swa_percent` of the steps is evaluated and kept (Izmailov et al. 2018).

    25% as in the paper, where the learning rate is constant or cyclic meanwhile: `schedule=constant` is nearest to it; with a rate that
    falls to 0 the average is nearer to the last parameters. The average is over steps, where the paper's is over epochs. Costs a copy
    of what trains.
    """
    check("swa_percent", config.swa_percent, 0 < config.swa_percent <= 100, "over 0 and at most 100")
    return Method(hooks=(Swa(config.swa_percent),))
