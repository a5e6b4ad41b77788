"""When what trains: the phases of a run, one after the other."""

import dataclasses

import optax

from research.adapt.adapted_model import AdaptedModel
from research.config import durations
from research.errors import InputError
from research.params import plan as plans
from research.train import optimizer


@dataclasses.dataclass(frozen=True)
class Phase:
    """The steps over `start` and up to `stop`, in which the same parameters train."""

    start: int
    stop: int
    plan: plans.Plan
    tx: optax.GradientTransformation


def make(model: AdaptedModel, rate: optax.Schedule, total: int, sizes: dict[str, int]) -> tuple[Phase, ...]:
    """The phases of a run of `total` steps. Raises InputError where one would begin after the end."""
    c, count = model.config, len(model.plan.phases or (model.plan,))
    every = durations.steps(c, "phase", total=total, **sizes) or -(-total // (2 * max(count - 1, 1)))
    starts = [i * every for i in range(count)]
    if starts[-1] >= total:
        late = next(i for i, start in enumerate(starts) if start >= total)
        what = f"phase {late + 1} of {count} would begin at step {starts[late]}, but the training has {total}"
        raise InputError(
            f"method={c.method}: {what}; shorten the phases with --config.phase_percent={100 // count}, or open more at a time"
        )
    found = []
    for plan, start, stop in zip(model.plan.phases or (model.plan,), starts, [*starts[1:], total], strict=True):
        tx = optimizer.make(plan, c, rate)
        for hook in model.recipe.hooks:
            tx = hook.optimizer(tx, c, total)
        found.append(Phase(start, stop, plan, tx))
    return tuple(found)
