"""The phases of a run: successive ranges of steps, each with a fixed set of trainable parameters."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import optax

from research.adapt.adapted_model import AdaptedModel
from research.adapt.base import TrainingHook
from research.config import durations
from research.errors import InputError
from research.params import plan as plans
from research.train import optimizer
from research.train.scalars import Scalars


@dataclasses.dataclass(frozen=True)
class Phase:
    """Updates `start` + 1 to `stop`, which train the same parameters. `optimizer` returns their optimizer for given scalars."""

    start: int
    stop: int
    plan: plans.Plan
    optimizer: Callable[[Scalars], optax.GradientTransformation]


def make(model: AdaptedModel, total: int, sizes: dict[str, int]) -> tuple[Phase, ...]:
    """Return the phases of a run of `total` steps. Raises InputError if a phase would begin at the end of training or later."""
    c, count = model.config, len(model.plan.phases or (model.plan,))
    every = durations.steps(c, "phase", total=total, **sizes) or -(-total // (2 * max(count - 1, 1)))
    starts = [i * every for i in range(count)]
    if starts[-1] >= total:
        late = next(i for i, start in enumerate(starts) if start >= total)
        what = f"phase {late + 1} of {count} would begin at step {starts[late]}, but the training has {total}"
        raise InputError(
            f"method={c.method}: {what}; shorten the phases with --config.phase_percent={100 // count}, or open more at a time"
        )
    plans_of_phases = model.plan.phases or (model.plan,)
    for plan in plans_of_phases:
        optimizer.check(plan, c)
    return tuple(
        Phase(start, stop, plan, functools.partial(_optimizer, model.recipe.hook, c, total, plan))
        for plan, start, stop in zip(plans_of_phases, starts, [*starts[1:], total], strict=True)
    )


def _optimizer(hook: TrainingHook, config: Any, total: int, plan: plans.Plan, scalars: Scalars) -> optax.GradientTransformation:
    return hook.optimizer(optimizer.make(plan, config, scalars), config, total)
