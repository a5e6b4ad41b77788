"""The numbers behind the page's plots, as plain lists and dicts: one entry a setting, scores in percent."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.ablation.report import statistics
from research.ablation.report.tables import Setting
from research.tasks.metrics import title
from research.tracking import writer

POINTS = 100  # of a curve at most; of longer ones, neighbouring steps are averaged
LEAST = 3  # settings of a method under a curve of expected maxima


def labels(every: Sequence[Setting]) -> list[str]:
    """What to call each setting, by what differs: `lora lora.rank=8`. A method needs no name, nor does what differs alone."""
    fields = list(dict.fromkeys(name for one in every for name in one.values))
    differing = [name for name in fields if any(one.values.get(name) != every[0].values.get(name) for one in every)] or fields
    plain = differing if len(differing) == 1 else ["method"]
    words = [
        [str(value) if name in plain else f"{name}={value}" for name, value in one.values.items() if name in differing] for one in every
    ]
    return [" ".join(of) or "as it is" for of in words]


def metric(every: Sequence[Setting]) -> str:
    """Return the metric of the finished runs as people read it ("f1 of 'spam'"), `score` where they have several."""
    selections = [run.result["selection"] for one in every for run in one.finished]
    found = {title(selection["metric"], selection.get("positive")) for selection in selections}
    return found.pop() if len(found) == 1 else "score"


def scores(every: Sequence[Setting]) -> list[dict[str, Any]]:
    """Of each setting that has a result: its test scores by seed, their mean and interval (from two seeds on), and its costs."""
    found = []
    for name, one in zip(labels(every), every, strict=True):
        test = one.scores("test")
        if test:
            known = statistics.interval(list(test.values())).cut(0, 100) if len(test) > 1 else None
            row = {"setting": name, "n": len(test), "mean": _round(np.mean(list(test.values())))}
            row |= {"low": _round(known.low), "high": _round(known.high)} if known and known.bounded else {}
            row |= {"seeds": [{"seed": seed, "score": _round(score)} for seed, score in test.items()]}
            row |= {"trainable": one.finished[0].result["params"]["trainable"], "seconds": _round(one.cost("train_s"))}
            found.append(row | {"tflop": _round(one.cost("train_flops") / 1e12)})
    return found


def curves(every: Sequence[Setting]) -> dict[str, list[dict[str, Any]]]:
    """`dev` (score) and `loss` (training) of each setting against the step: lists `step`, `mean`, and `sd` over seeds (null for one).

    Also of runs that have failed or are not finished, as far as they came.
    """
    found: dict[str, list[dict[str, Any]]] = {"dev": [], "loss": []}
    finished = next((run for one in every for run in one.finished), None)
    for name, one in zip(labels(every), every, strict=True):
        metric = (one.finished or [finished])[0].result["selection"]["metric"] if finished else "accuracy"
        lines = [writer.read_metrics(run.folder) for run in one.runs]
        for kind, entry, unit in (("dev", f"dev/{metric}", 100), ("loss", "train/loss", 1)):
            if curve := _curve([{line["step"]: line[entry] for line in of if entry in line} for of in lines], unit):
                found[kind].append({"setting": name, **curve})
    return found


def _curve(seeds: Sequence[dict[int, float]], unit: float) -> dict[str, list] | None:
    """Mean and sd over seeds of values by step; what is not finite is left out."""
    steps = sorted({step for one in seeds for step in one})
    if not steps:
        return None
    values = unit * np.ma.masked_invalid(np.array([[one.get(step) for step in steps] for one in seeds], float))
    parts = np.array_split(np.arange(len(steps)), min(len(steps), POINTS))
    binned = np.ma.stack([values[:, part].mean(1) for part in parts], 1)
    several = binned.count(0) > 1
    sd = np.ma.masked_where(~several, binned.std(0, ddof=1 if len(seeds) > 1 else 0))
    step = [round(float(np.mean(np.take(steps, part))), 1) for part in parts]
    return {"step": step, "mean": _listed(binned.mean(0)), "sd": _listed(sd)}


def expected_best(every: Sequence[Setting]) -> list[dict[str, Any]]:
    """For each method with `LEAST` settings or more: the expected best dev score of k of them tried at random (Dodge et al. 2019).

    A setting's score is its mean over seeds. A list of methods is no search over hyperparameters, so it has no such curve.
    """
    tried: dict[str, list[float]] = {}
    for one in every:
        if one.results:
            tried.setdefault(str(one.values.get("method", "all settings")), []).append(float(np.mean(list(one.scores("dev").values()))))
    return [
        {"method": method, "trials": trials, "best": _round(statistics.expected_maximum(dev, trials))}
        for method, dev in tried.items()
        if len(dev) >= LEAST
        for trials in range(1, len(dev) + 1)
    ]


def _listed(x: np.ma.MaskedArray) -> list[float | None]:
    return [None if value is None else _round(value) for value in x.tolist()]


def _round(x: float) -> float:
    return float(f"{x:.5g}")
