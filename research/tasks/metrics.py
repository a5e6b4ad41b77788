"""Metrics from exact totals: what is summed on the device, and the scores made of the sums on the host."""

from collections.abc import Sequence

import numpy as np

from research.errors import InputError, nearest

OF_ONE = ("precision", "recall", "f1")  # of one class, where there is one to name
NAMES = ("accuracy", *OF_ONE, *(f"macro_{name}" for name in OF_ONE))  # what can select: higher is better


def classification_scores(confusion: np.ndarray, positive: int | None = None) -> dict[str, float]:
    """Return the scores of a confusion matrix [C, C] of counts (rows the truth, columns the prediction).

    accuracy; macro_precision, macro_recall, macro_f1: unweighted means over the classes that occur in truth or prediction;
    precision, recall, f1: those of the class `positive`, by default the second of two; above two classes, the macro means. A score
    whose denominator is zero is 0, as in scikit-learn with `zero_division=0`.
    """
    each = of_classes(confusion)
    present = np.sum(confusion, 0) + np.sum(confusion, 1) > 0
    macro = {name: float(each[name][present].mean()) for name in OF_ONE}
    one = 1 if positive is None and len(present) == 2 else positive
    return {
        "accuracy": float(np.trace(confusion) / np.sum(confusion)),
        **({name: float(each[name][one]) for name in OF_ONE} if one is not None else macro),
        **{f"macro_{name}": value for name, value in macro.items()},
    }


def of_classes(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall, f1 and support of each class, [C] each."""
    confusion = np.asarray(confusion, np.float64)
    hits, predicted, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, true),
        "f1": _ratio(2 * hits, predicted + true),
        "support": true.astype(int),
    }


def positive_class(labels: Sequence[str], asked: str) -> str | None:
    """Return the class that precision, recall and f1 are of: the one asked for, else the second of two; None above two.

    Raises InputError where the class that is asked for is not there."""
    if asked and asked not in labels:
        raise InputError(f"positive={asked!r} is not a class; {nearest(asked, labels)}")
    return asked or (labels[1] if len(labels) == 2 else None)


def title(name: str, positive: str | None) -> str:
    """Return what people call a metric: `f1 of 'spam'` where it is of one class."""
    return f"{name} of {positive!r}" if positive is not None and name in OF_ONE else name


def shown(positive: str | None) -> tuple[str, ...]:
    """Return the metrics that say something of their own; without a positive class, f1 is macro_f1."""
    return ("accuracy", "macro_f1") if positive is None else ("accuracy", "f1", "macro_f1")


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b > 0)
