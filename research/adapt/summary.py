"""The plan of a run as text, and the predicted cost of its steps."""

import dataclasses
from typing import Any

from research.adapt import flops
from research.adapt.adapted_model import AdaptedModel
from research.config.durations import UNITS
from research.params import plan as plans
from research.params.tree import flatten, merge


def summary(model: AdaptedModel) -> str:
    """Return the plan of a model as text: the treatment of every parameter, the deltas and training hooks, the phases, the learning rate
    and the predicted cost of a step.

    The cost is in FLOPs, relative to full fine-tuning, for rows of `max_length` tokens.
    """
    describe = lambda parts: ", ".join(f"{x.name}({', '.join(f'{k}={v}' for k, v in _fields(x))})" for x in parts)  # noqa: E731
    lines = [*model.notes]
    lines += [f"{title}: {describe(parts)}" for title, parts in model.recipe.additions().items() if parts]
    if phases := model.plan.phases:
        given = {f"phase_{unit}": value for unit in UNITS if (value := model.config.get(f"phase_{unit}"))}
        lengths = "".join(f"each {name}={value:g}" for name, value in given.items()) or "beginning evenly spread over the first half"
        lines.append(f"phases: {len(phases)}, {lengths}")
    rate, base = model.config.learning_rate, model.config.base_learning_rate
    lines.append(f"learning rate: {rate:g}" + (f", {rate / base:g} times base_learning_rate" if base else ""))
    direct, cached = (", ".join(f"{cost(model, plan, from_cache):.2f}" for plan in phases or (model.plan,)) for from_cache in (False, True))
    remark = f" ({cached} where the frozen stages are read from disk)" if model.config.prefix_cache_gb and cached != direct else ""
    lines.append(f"predicted FLOPs of a step relative to full fine-tuning: {direct}{remark}")
    return model.plan.render() + "".join(f"{line}\n" for line in lines)


def cost(model: AdaptedModel, plan: plans.Plan, cached: bool = False) -> float:
    """Return the predicted FLOPs of a training step of `plan` as a fraction of full fine-tuning. With `cached`, the hidden states after
    the frozen stages are read from disk instead of computed."""
    params, added = merge(model.trainable, model.frozen), {}
    for delta in model.recipe.deltas:
        for path, (elements, trained) in delta.matrices(flatten(params["delta"][delta.name]), flatten(params["encoder"])).items():
            total = added.get(path, (0, 0))
            added[path] = total[0] + elements, total[1] + trained
    sizes, shape = {name: leaf.shape for name, leaf in flatten(params).items()}, flops.Shape.of(model.encoder)
    rows, length, extra = model.config.batch_size, model.config.max_length, model.extra_tokens
    one_pass = flops.relative(plan, sizes, shape, rows, length, cached, added, extra)
    return one_pass * model.recipe.passes


def _fields(x: Any) -> list[tuple[str, Any]]:
    return [(field.name, getattr(x, field.name)) for field in dataclasses.fields(x)]
