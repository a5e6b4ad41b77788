"""Compare two settings by which test examples their runs predict correctly."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from research.ablation.report import statistics
from research.ablation.run import Run
from research.errors import InputError

MIN_EXAMPLES = 50  # for a bootstrap interval


def difference(a: Sequence[Run], b: Sequence[Run]) -> statistics.Estimate | None:
    """Return the test accuracy of the runs `a` minus that of the runs `b`, in percent, on the same examples, averaged over seeds.

    With several seeds the interval is the bootstrap interval over examples. With a single seed each there is McNemar's p and no interval.
    Returns None if predictions are missing, belong to different examples, or are too few for an interval. Raises InputError on a
    malformed file.
    """
    x, y = _mean_correct(a), _mean_correct(b)
    if x is None or y is None or x[0] != y[0] or not x[1].size:
        return None
    differences = 100 * (x[1] - y[1])
    if len(a) == len(b) == 1:
        p = statistics.mcnemar_p(np.ones(len(differences)), x[1], y[1])
        return statistics.Estimate(float(differences.mean()), -np.inf, np.inf, p)
    return statistics.bootstrap_interval(differences) if len(differences) >= MIN_EXAMPLES else None


def _mean_correct(runs: Sequence[Run]) -> tuple[int, np.ndarray] | None:
    """Return a hash of the examples, and for each example [n] the share of the runs that predict it correctly.

    Returns None unless all runs have predictions on the same examples."""
    paths = [run.folder / "predictions" / "test.jsonl" for run in runs]
    if not paths or not all(path.exists() for path in paths):
        return None
    hashes, correct = zip(*(_correct(path, path.stat().st_mtime_ns) for path in paths), strict=True)
    return (hashes[0], np.mean(correct, 0)) if len(set(hashes)) == 1 else None


@functools.cache
def _correct(path: Path, changed: int) -> tuple[int, np.ndarray]:
    """Return a hash of the ids and labels of the file's examples, in order, and for each example [n] whether the prediction is correct.

    The result is cached, because several tables need it. `changed`, the file's modification time, is part of the cache key.
    """
    try:
        with path.open(encoding="utf8") as lines:  # splitlines would also split at other line separators inside the texts
            rows = [json.loads(line) for line in lines]
        examples = hash(tuple((row["id"], json.dumps(row["label"])) for row in rows))
        return examples, np.array([row["prediction"] == row["label"] for row in rows])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not JSON lines with id, label and prediction; remove {path.parents[1]} and run again") from None
