"""Metrics from exact totals: what is summed on the device, and the scores made of the sums on the host."""

import numpy as np


def classification_scores(confusion: np.ndarray) -> dict[str, float]:
    """Scores of a confusion matrix [C, C] of counts (rows the truth, columns the prediction).

    accuracy; macro_precision, macro_recall, macro_f1: unweighted means over the classes that occur in truth or prediction;
    precision, recall, f1: those of the second class where there are two, else the macro means. A score whose denominator is
    zero is 0, as in scikit-learn with `zero_division=0`.
    """
    confusion = np.asarray(confusion, np.float64)
    hits, predicted, true = np.diag(confusion), confusion.sum(0), confusion.sum(1)
    precision, recall = _ratio(hits, predicted), _ratio(hits, true)
    f1 = _ratio(2 * hits, predicted + true)
    present = (predicted + true) > 0
    macro = {name: float(x[present].mean()) for name, x in (("precision", precision), ("recall", recall), ("f1", f1))}
    main = {"precision": precision[1], "recall": recall[1], "f1": f1[1]} if len(hits) == 2 else macro
    return {
        "accuracy": float(hits.sum() / confusion.sum()),
        **{name: float(value) for name, value in main.items()},
        **{f"macro_{name}": value for name, value in macro.items()},
    }


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.divide(a, b, out=np.zeros_like(a, dtype=np.float64), where=b > 0)
