"""Metrics computed on the host from sums over all examples."""

from collections.abc import Mapping, Sequence

import numpy as np

from research.errors import InputError, nearest

OF_ONE = ("precision", "recall", "f1")  # of one class, if there is a positive class
NAMES = ("accuracy", *OF_ONE, *(f"macro_{name}" for name in OF_ONE))  # metrics that can select the best checkpoint: higher is better


def classification_scores(confusion: np.ndarray, positive: int | None = None) -> dict[str, float]:
    """Return the metrics of a confusion matrix [C, C] of counts (rows are true classes, columns are predictions).

    macro_precision, macro_recall and macro_f1 are unweighted means over the classes with at least one true or predicted example.
    precision, recall and f1 are of the class `positive`, by default the second of two; above two classes, they are the macro means.
    A metric whose denominator is zero is 0, as in scikit-learn with `zero_division=0`.
    """
    by_name = of_classes(confusion)
    present = np.sum(confusion, 0) + np.sum(confusion, 1) > 0
    macro = {name: float(by_name[name][present].mean()) for name in OF_ONE}
    index = 1 if positive is None and len(present) == 2 else positive
    return {
        "accuracy": float(np.trace(confusion) / np.sum(confusion)),
        **({name: float(by_name[name][index]) for name in OF_ONE} if index is not None else macro),
        **{f"macro_{name}": value for name, value in macro.items()},
    }


def of_classes(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return precision, recall, f1 and support of all classes, [C] each."""
    confusion = np.asarray(confusion, np.float64)
    hits, predicted, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    return {
        "precision": _ratio(hits, predicted),
        "recall": _ratio(hits, true),
        "f1": _ratio(2 * hits, predicted + true),
        "support": true.astype(int),
    }


def of_counts(right: Mapping[str, int], detected: Mapping[str, int], true: Mapping[str, int]) -> tuple[dict[str, dict], dict[str, float]]:
    """Return precision, recall, f1 and support of each type, and precision, recall, f1 and `macro_f1` of all, from numbers of items.

    The arguments hold, by type, the items that are both detected and true, those that are detected, and those that are true. `macro_f1` is
    the mean over the types in either. A score whose denominator is zero is 0."""
    by_type = {kind: _of_items(right.get(kind, 0), detected.get(kind, 0), true.get(kind, 0)) for kind in sorted({*detected, *true})}
    total = _of_items(*(sum(counts.values()) for counts in (right, detected, true)))
    del total["support"]
    return by_type, total | {"macro_f1": float(np.mean([scores["f1"] for scores in by_type.values()])) if by_type else 0.0}


def _of_items(right: int, detected: int, true: int) -> dict[str, float]:
    return {
        "precision": right / detected if detected else 0.0,
        "recall": right / true if true else 0.0,
        "f1": 2 * right / (detected + true) if detected + true else 0.0,
        "support": true,
    }


def positive_class(labels: Sequence[str], asked: str) -> str | None:
    """Return the class that precision, recall and f1 are of: `asked` if given, else the second of two classes, else None.

    Raises InputError if `asked` is not a class."""
    if asked and asked not in labels:
        raise InputError(f"positive={asked!r} is not a class; {nearest(asked, labels)}")
    return asked or (labels[1] if len(labels) == 2 else None)


def title(name: str, positive: str | None) -> str:
    """Return the title of a metric, with its class if it is of one class: `f1 of 'spam'`."""
    return f"{name} of {positive!r}" if positive is not None and name in OF_ONE else name


def shown(positive: str | None) -> tuple[str, ...]:
    """Return the metrics to show. f1 is left out without a positive class, where it equals macro_f1."""
    return ("accuracy", "macro_f1") if positive is None else ("accuracy", "f1", "macro_f1")


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b > 0)
