"""Hints at the end of a run about problems in its training. A run without these problems gets no hints."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.tasks.metrics import title

POINTS = 8  # fewest log lines for a hint about the training loss


def hints(
    config: Mapping[str, Any],
    metric: str,
    positive: str | None,
    selected: int,
    lines: Sequence[Mapping[str, float]],
    dev: Sequence[Mapping],
) -> list[str]:
    """Return one line for each problem of a run.

    `metric` selects the checkpoint; if it is the metric of one class, that class is `positive`. `selected` is the step of the selected
    checkpoint, `lines` are the rows of metrics.jsonl, and `dev` holds the predictions on dev."""
    scores = [(line["step"], line[f"dev/{metric}"]) for line in lines if f"dev/{metric}" in line]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    candidates = [_loss(config, losses), _classes(dev), _dev_curve(config, title(metric, positive), selected, scores, losses)]
    return [hint for hint in candidates if hint]


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


def _classes(dev: Sequence[Mapping]) -> str:
    """Return a hint about classes that are never predicted, else about accuracy no better than that of always predicting one class."""
    true, predicted = Counter(row["label"] for row in dev), Counter(row["prediction"] for row in dev)
    (common, most), *_ = true.most_common(1)
    if len(predicted) == 1 < len(true):
        return f"every dev example was predicted as {next(iter(predicted))!r}: the model has not learnt to tell the classes apart"
    missing = [f"{label!r} ({true[label]} of {len(dev)} dev examples)" for label in sorted(true.keys() - predicted.keys())]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        return f"never predicted on dev: {', '.join(missing[:5])}{more}; train longer, or give these classes more examples"
    right = sum(row["label"] == row["prediction"] for row in dev)
    if len(true) > 1 and right <= most:
        return f"dev accuracy {right / len(dev):.4f} is not above that of always answering {common!r}, {most / len(dev):.4f}"
    return ""


def _dev_curve(config: Mapping[str, Any], metric: str, selected: int, scores: Sequence[tuple[int, float]], losses: Sequence[float]) -> str:
    """Return a hint if the dev metric was still rising at the end, or was best in the first half of the training."""
    if len(scores) < 2:
        return ""
    (_, before), (last, score) = scores[-2:]
    if score > max(value for _, value in scores[:-1]):
        unit = next(unit for unit in ("steps", "epochs", "examples") if config.get(f"total_{unit}"))
        longer = f"--config.total_{unit}={2 * config[f'total_{unit}']:g}"
        return f"dev {metric} was still rising at the end ({before:.4f}, then {score:.4f}): train longer, {longer} with another --workdir"
    if len(scores) > 2 and selected <= last / 2 and len(losses) >= POINTS and _loss_fell(losses):
        return (
            f"dev {metric} was best at step {selected:,} of {last:,} and not afterwards, while the training loss fell: the rest fitted the "
            "training set alone; --config.patience_epochs=1 stops sooner"
        )
    return ""
