"""The plan of a run as text, and the predicted cost of its steps."""

import dataclasses
from typing import Any

from research.adapt import flops
from research.adapt.adapted_model import AdaptedModel
from research.config.durations import UNITS
from research.params import plan as plans
from research.params.tree import flatten, merge


def summary(model: AdaptedModel) -> str:
    """Return the plan of a model as text: what becomes of every parameter, what is added and when,
    what holds it back, and what a step should cost.

    The cost is in FLOPs, beside full fine-tuning, for rows of `max_length` tokens.
    """
    described = lambda things: ", ".join(f"{x.name}({', '.join(f'{k}={v}' for k, v in _fields(x))})" for x in things)  # noqa: E731
    lines = [*model.notes]
    lines += [f"{what}: {described(things)}" for what, things in model.recipe.additions().items() if things]
    if phases := model.plan.phases:
        given = {f"phase_{unit}": value for unit in UNITS if (value := model.config.get(f"phase_{unit}"))}
        lengths = "".join(f"each {name}={value:g}" for name, value in given.items()) or "begun evenly over the first half"
        lines.append(f"phases: {len(phases)}, {lengths}")
    rate, base = model.config.learning_rate, model.config.base_learning_rate
    lines.append(f"learning rate: {rate:g}" + (f", {rate / base:g} times base_learning_rate" if base else ""))
    plain, kept = (", ".join(f"{cost(model, plan, cached):.2f}" for plan in phases or (model.plan,)) for cached in (False, True))
    what = f" ({kept} where the frozen stages are read from disk)" if model.config.prefix_cache_gb and kept != plain else ""
    lines.append(f"predicted FLOPs of a step beside full fine-tuning: {plain}{what}")
    return model.plan.render() + "".join(f"{line}\n" for line in lines)


def cost(model: AdaptedModel, plan: plans.Plan, cached: bool = False) -> float:
    """Return the predicted FLOPs of a training step of `plan` as a fraction of those of full fine-tuning;
    `cached`: without the frozen stages."""
    params, added = merge(model.trainable, model.frozen), {}
    for delta in model.recipe.deltas:
        for path, (elements, trained) in delta.matrices(flatten(params["delta"][delta.name]), flatten(params["encoder"])).items():
            before = added.get(path, (0, 0))
            added[path] = before[0] + elements, before[1] + trained
    sizes, shape = {name: leaf.shape for name, leaf in flatten(params).items()}, flops.Shape.of(model.encoder)
    rows, length, extra = model.config.batch_size, model.config.max_length, model.extra_tokens
    once = flops.relative(plan, sizes, shape, rows, length, cached, added, extra)
    return once * model.recipe.passes


def _fields(x: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(x, field.name)) for field in dataclasses.fields(x)]
