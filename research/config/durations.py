"""Durations in several units (`total_epochs`, `warmup_percent`, `eval_steps`, ...), and their conversion to steps."""

from collections.abc import Iterable

from ml_collections import ConfigDict

from research.errors import InputError

UNITS = {"steps": int, "epochs": float, "examples": int, "percent": float}
# Durations, each given in one of `UNITS`. `--list=fields` prints these descriptions.
DURATIONS = {
    "total": "length of the training",
    "warmup": "length of the learning rate warm-up",
    "eval": "interval between evaluations on dev",
    "checkpoint": "interval between checkpoints to resume from",
    "log": "interval between lines of training metrics",
    "phase": "length of each phase of gradual_unfreezing or chain_thaw; 0: all phases begin in the first half",
    "patience": "time without a better dev score after which training stops; 0: never",
}


def steps(config, name: str, *, batch_size: int, epoch_steps: int, total: int | None = None, least: int = 1) -> int:
    """Return the duration called `name` in steps: rounded, and at least `least` unless it is 0.

    `epoch_steps` is the number of steps of an epoch, `total` the number of steps of the run (for `_percent`). Raise InputError if no
    unit or several units are given, or if the value is negative.
    """
    given = {unit: value for unit in UNITS if (value := config.get(f"{name}_{unit}")) is not None}
    if len(given) != 1:
        names = [f"{name}_{unit}" for unit in given] or [f"{name}_{unit}" for unit in UNITS]
        problem = "are two units for one duration; give one of them" if given else "are all empty; give one of them"
        raise InputError(f"config: {', '.join(names)} {problem}")
    ((unit, value),) = given.items()
    if value < 0:
        raise InputError(f"config: {name}_{unit}={value} is negative")
    scale = {"steps": 1.0, "epochs": epoch_steps, "examples": 1.0 / batch_size, "percent": (total or 0) / 100.0}[unit]
    return max(round(value * scale), least) if value else 0


def resolve_units(c: ConfigDict, given: Iterable[str]) -> None:
    """Clear the other units of each duration named in `given`. Raise InputError if two units of one duration are given."""
    given = list(given)
    for duration in DURATIONS:
        named = [name for unit in UNITS if (name := f"{duration}_{unit}") in given]
        if len(named) > 1:
            raise InputError(f"config: {' and '.join(named)} are two units for one duration; give one of them")
        for unit in UNITS:
            if named and (other := f"{duration}_{unit}") not in named and other in c:
                c[other] = None
