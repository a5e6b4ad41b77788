"""Which test examples the runs of a setting get right, and how far two settings differ over them."""

import functools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from research.ablation.report import statistics
from research.ablation.runs import Run
from research.errors import InputError

LEAST = 50  # examples under a bootstrap interval


def difference(a: Sequence[Run], b: Sequence[Run]) -> statistics.Estimate | None:
    """Accuracy on test of the runs of a less that of b's, in percent, over the same examples, each averaged over its seeds.

    Of several seeds the interval is the bootstrap's over examples; of a single seed each there is McNemar's p and no interval. None
    where predictions are not there, are of other examples, or are too few for an interval. Raises InputError on a file that is broken.
    """
    x, y = _share_right(a), _share_right(b)
    if x is None or y is None or x[0] != y[0] or not x[1].size:
        return None
    apart = 100 * (x[1] - y[1])
    if len(a) == len(b) == 1:
        return statistics.Estimate(float(apart.mean()), -np.inf, np.inf, statistics.mcnemar_p(np.ones(len(apart)), x[1], y[1]))
    return statistics.bootstrap_interval(apart) if len(apart) >= LEAST else None


def _share_right(runs: Sequence[Run]) -> tuple[int, np.ndarray] | None:
    """What examples they are, and for each [n] the share of the runs that get it right; None unless all runs have the same."""
    paths = [run.folder / "predictions" / "test.jsonl" for run in runs]
    if not paths or not all(path.exists() for path in paths):
        return None
    which, right = zip(*(_right(path, path.stat().st_mtime_ns) for path in paths), strict=True)
    return (which[0], np.mean(right, 0)) if len(set(which)) == 1 else None


@functools.cache
def _right(path: Path, changed: int) -> tuple[int, np.ndarray]:
    """A number for the ids and labels of the file's examples, in order, and for each [n] whether the prediction is the label.

    Kept, as several tables ask, until the file has `changed`.
    """
    try:
        with path.open(encoding="utf8") as lines:  # not splitlines, which also breaks at signs that texts may have
            rows = [json.loads(line) for line in lines]
        which = hash(tuple((row["id"], row["label"]) for row in rows))
        return which, np.array([row["prediction"] == row["label"] for row in rows])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not JSON lines with id, label and prediction; remove {path.parents[1]} and run again") from None
