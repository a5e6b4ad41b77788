"""The data of the page's plots, as plain lists and dicts with one entry per setting; scores are in percent."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from research.ablation.report import statistics
from research.ablation.report.tables import Setting
from research.tasks.selection import title
from research.tracking import writer

POINTS = 100  # most points of a curve; neighbouring steps of longer curves are averaged
MIN_SETTINGS = 3  # fewest settings of a method for a curve of expected maxima


def labels(settings: Sequence[Setting]) -> list[str]:
    """Return a label for each setting from the fields that differ: `lora lora.rank=8`.

    The field name is left out for the method, and if only one field differs."""
    fields = list(dict.fromkeys(name for setting in settings for name in setting.values))
    differing = [name for name in fields if any(setting.values.get(name) != settings[0].values.get(name) for setting in settings)] or fields
    unnamed = differing if len(differing) == 1 else ["method"]
    parts = [
        [str(value) if name in unnamed else f"{name}={value}" for name, value in setting.values.items() if name in differing]
        for setting in settings
    ]
    return [" ".join(words) or "base config" for words in parts]


def metric(settings: Sequence[Setting]) -> str:
    """Return the readable name of the finished runs' metric ("f1 of 'spam'"), or `score` if the runs have several metrics."""
    selections = [run.result["selection"] for setting in settings for run in setting.finished]
    names = {title(selection) for selection in selections}
    return names.pop() if len(names) == 1 else "score"


def scores(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Return, for each setting with a result, the test scores by seed, their mean, the interval (from two seeds on) and the costs."""
    rows = []
    for name, setting in zip(labels(settings), settings, strict=True):
        test = setting.scores("test")
        if test:
            interval = statistics.interval(list(test.values())).cut(0, 100) if len(test) > 1 else None
            row = {"setting": name, "n": len(test), "mean": _round(np.mean(list(test.values())))}
            row |= {"low": _round(interval.low), "high": _round(interval.high)} if interval and interval.bounded else {}
            row |= {"seeds": [{"seed": seed, "score": _round(score)} for seed, score in test.items()]}
            row |= {"trainable": setting.finished[0].result["params"]["trainable"], "seconds": _round(setting.cost("train_s"))}
            rows.append(row | {"tflop": _round(setting.cost("train_flops") / 1e12)})
    return rows


def curves(settings: Sequence[Setting]) -> dict[str, list[dict[str, Any]]]:
    """Return learning curves of each setting: `dev` (score) and `loss` (training), each with lists `step`, `mean` and `sd`.

    `sd` is the standard deviation over seeds, null for one seed. Failed and unfinished runs contribute the steps they logged.
    """
    rows: dict[str, list[dict[str, Any]]] = {"dev": [], "loss": []}
    finished = next((run for setting in settings for run in setting.finished), None)
    for name, setting in zip(labels(settings), settings, strict=True):
        metric = (setting.finished or [finished])[0].result["selection"]["metric"] if finished else "accuracy"
        logs = [writer.read_metrics(run.folder) for run in setting.runs]
        for kind, entry, unit in (("dev", f"dev/{metric}", 100), ("loss", "train/loss", 1)):
            if curve := _curve([{line["step"]: line[entry] for line in log if entry in line} for log in logs], unit):
                rows[kind].append({"setting": name, **curve})
    return rows


def _curve(seeds: Sequence[dict[int, float]], unit: float) -> dict[str, list] | None:
    """Return the mean and standard deviation over seeds of values by step; values that are not finite are left out."""
    steps = sorted({step for by_step in seeds for step in by_step})
    if not steps:
        return None
    values = unit * np.ma.masked_invalid(np.array([[by_step.get(step) for step in steps] for by_step in seeds], float))
    bins = np.array_split(np.arange(len(steps)), min(len(steps), POINTS))
    binned = np.ma.stack([values[:, indices].mean(1) for indices in bins], 1)
    several = binned.count(0) > 1
    sd = np.ma.masked_where(~several, binned.std(0, ddof=1 if len(seeds) > 1 else 0))
    step = [round(float(np.mean(np.take(steps, indices))), 1) for indices in bins]
    return {"step": step, "mean": _to_list(binned.mean(0)), "sd": _to_list(sd)}


def expected_best(settings: Sequence[Setting]) -> list[dict[str, Any]]:
    """Return, for each method with at least `MIN_SETTINGS` settings, the expected best dev score of k random settings (Dodge et al. 2019).

    The score of a setting is its mean over seeds. Methods with a single setting get no curve: they are not a hyperparameter search.
    """
    tried: dict[str, list[float]] = {}
    for setting in settings:
        if setting.results:
            score = float(np.mean(list(setting.scores("dev").values())))
            tried.setdefault(str(setting.values.get("method", "all settings")), []).append(score)
    return [
        {"method": method, "trials": trials, "best": _round(statistics.expected_maximum(dev, trials))}
        for method, dev in tried.items()
        if len(dev) >= MIN_SETTINGS
        for trials in range(1, len(dev) + 1)
    ]


def _to_list(x: np.ma.MaskedArray) -> list[float | None]:
    return [None if value is None else _round(value) for value in x.tolist()]


def _round(x: float) -> float:
    return float(f"{x:.5g}")
