"""A synthetic sweep on disk with results, curves and predictions, including failed and unfinished runs and a run that never started."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from research.ablation import sweep
from research.ablation.run import Run
from research.experiment import workdir as workdirs
from tests import runs

SIZES = {"lora.rank": (2, 4, 8, 16), "dora.rank": (2, 4, 8, 16), "vera.rank": (32, 64, 128, 256), "houlsby.size": (8, 16, 32, 64)}
SETTINGS = sweep.chain(
    sweep.over("method", ["full", "linear_probe", "top_k", "bitfit"]),
    *(sweep.product([{"method": field.partition(".")[0]}], sweep.over(field, values)) for field, values in SIZES.items()),
)
STRANGE = 'InputError: "</script><script>document.title = 1</script>" is not known\nsecond line'


def made_up(folder: Path, seeds: int = 5, steps: int = 600, examples: int = 500) -> list[Run]:
    """Write 20 settings with `seeds` seeds each and return their runs.

    Run 0 never started, run 1 failed after half its steps, run 6 is unfinished after half its steps, the last run failed at once."""
    rng = np.random.default_rng(0)
    cells = [(overrides, runs.config("trec", "smoke", **overrides)) for overrides in sweep.product(SETTINGS, sweep.seeds(seeds))]
    made = [Run(workdirs.config_hash(config)[:12], overrides, config, folder / str(i)) for i, (overrides, config) in enumerate(cells)]
    skills = 0.75 + 0.01 * np.arange(len(made)) / seeds + rng.normal(0, 0.01, len(made))
    for i in range(1, len(made) - 1):
        write_metrics(made[i].folder, skills[i], steps, rng, upto=steps // 2 if i in (1, 6) else None)
        (made[i].folder / "config.json").write_text("{}")
    for i in {*range(2, len(made) - 1)} - {6}:
        accuracy = write_predictions(made[i].folder, rng.random(examples) < skills[i])
        made[i] = dataclasses.replace(made[i], result=result(accuracy, dev=skills[i], size=i // seeds))
    for i, error in ((1, "FloatingPointError: the loss is not finite"), (-1, STRANGE)):
        made[i] = dataclasses.replace(made[i], error=error)
    return made


def write_metrics(folder: Path, skill: float, steps: int, rng: np.random.Generator, upto: int | None = None) -> None:
    """Write `metrics.jsonl` for `steps` steps with ten dev scores; with `upto` it stops there, with a NaN loss in the next step."""
    lines: list[dict[str, float]] = []
    for step in range(1, (upto or steps) + 1):
        done = 1 - np.exp(-5 * step / steps)
        lines.append({"step": step, "train/loss": 1.8 - 1.5 * done + rng.normal(0, 0.1), "train/accuracy": done, "learning_rate": 1e-4})
        if step % (steps // 10) == 0:
            lines.append({"step": step, "dev/loss": 1 - skill * done, "dev/accuracy": skill * done + rng.normal(0, 0.01)})
    if upto:
        lines.append({"step": upto + 1, "train/loss": float("nan")})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_predictions(folder: Path, right: np.ndarray, labels: tuple[str, str] = ("no", "yes")) -> float:
    """Write `predictions/test.jsonl`, correct where `right` [n] is true, and return the accuracy.

    The texts contain quotes and unusual line separators, which a naive reader would split."""
    path = folder / "predictions" / "test.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"id": f"test-{i}", "text": 'a "label": "x"\u2028and\x85so on', "label": labels[i % 2], "prediction": labels[(i + (not ok)) % 2]}
        for i, ok in enumerate(right)
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf8")
    return float(np.mean(right))


def result(test: float, dev: float = 0.5, size: int = 0) -> dict[str, Any]:
    """Return the entries of `result.json` that tables and pages read, with these accuracies."""
    return {
        "metrics": {"dev": {"accuracy": dev}, "test": {"accuracy": test}},
        "selection": {"split": "dev", "metric": "accuracy"},
        "params": {"trainable": 10 * 2**size},
        "speed": {"train_s": 1.0 + size, "train_flops": 2e12 * (1 + size)},
        "config": {"precision": "bfloat16"},
        "environment": {"python": "3.12.0", "jax": "0.10.2", "devices": ["cpu"]},
    }
