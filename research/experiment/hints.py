"""Hints at the end of a run about problems in its training. A run without these problems gets no hints."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.tasks.catalog import TASKS
from research.tasks.selection import title

POINTS = 8  # fewest log lines for a hint about the training loss


def hints(
    config: Mapping[str, Any],
    selection: Mapping[str, Any],
    selected: int,
    lines: Sequence[Mapping[str, float]],
    dev: Sequence[Mapping],
) -> list[str]:
    """Return one line for each problem of a run.

    `config` and `selection` are those entries of `result.json`, `selected` is the step of the selected checkpoint, `lines` are the rows of
    metrics.jsonl, and `dev` those of predictions/dev.jsonl."""
    name = f"dev/{selection['metric']}"
    scores = [(line["step"], line[name]) for line in lines if name in line]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    higher = selection.get("higher_is_better", True)
    of_dev = _dev_curve(config, title(selection), selected, scores, losses, higher)
    return [hint for hint in (_loss(config, losses), *TASKS[config["task"]].hints(dev), of_dev) if hint]


def _loss_fell(losses: Sequence[float]) -> bool:
    quarter = max(1, len(losses) // 4)
    return np.mean(losses[-quarter:]) < 0.98 * np.mean(losses[:quarter])


def _loss(config: Mapping[str, Any], losses: Sequence[float]) -> str:
    if len(losses) < POINTS or _loss_fell(losses):
        return ""
    rate = config["learning_rate"]
    return (
        f"the training loss never fell ({losses[0]:.3f} at first, {losses[-1]:.3f} at the end): try another learning rate, "
        f"--config.learning_rate={rate * 3:.2g} or {rate / 3:.2g}, and check that the labels belong to the texts"
    )


def _dev_curve(
    config: Mapping[str, Any],
    metric: str,
    selected: int,
    scores: Sequence[tuple[int, float]],
    losses: Sequence[float],
    higher_is_better: bool,
) -> str:
    """Return a hint if the dev metric was still improving at the end, or was best in the first half of the training."""
    if len(scores) < 2:
        return ""
    (_, before), (last, score) = scores[-2:]
    earlier = [value for _, value in scores[:-1]]
    if score > max(earlier) if higher_is_better else score < min(earlier):
        unit = next(unit for unit in ("steps", "epochs", "examples") if config.get(f"total_{unit}"))
        value = 2 * config[f"total_{unit}"]
        longer = f"--config.total_{unit}={value if isinstance(value, int) else f'{value:g}'}"
        return (
            f"dev {metric} was still improving at the end ({before:.4f}, then {score:.4f}): train longer, {longer} with another --workdir"
        )
    if len(scores) > 2 and selected <= last / 2 and len(losses) >= POINTS and _loss_fell(losses):
        return (
            f"dev {metric} was best at step {selected:,} of {last:,} and not afterwards, while the training loss fell: the rest fitted the "
            "training set alone; --config.patience_epochs=1 stops sooner"
        )
    return ""
