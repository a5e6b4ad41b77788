"""Allowed values of config fields, as far as they do not depend on other fields. Imports no jax."""

import math
from collections.abc import Iterable
from typing import Any

from research.config import durations
from research.errors import InputError, nearest

# Lowest value, highest value (None: no limit), and whether the highest value is allowed.
RANGES: dict[str, tuple[float, float | None, bool]] = {
    "seed": (0, 2**32, False),
    "data.seed": (0, 2**32, False),
    "data.train_examples": (0, None, True),
    "data.eval_examples": (0, None, True),
    "data.dev_fraction": (0, 1, False),
    "data.augment_rate": (0, 1, False),
    "data.augment_copies": (1, None, True),
    "max_length": (3, None, True),
    "truncation_head": (1, None, True),
    "batch_size": (1, None, True),
    "eval_batch_tokens": (1, None, True),
    "accumulate": (1, None, True),
    "dropout": (0, 1, False),
    "attention_dropout": (0, 1, False),
    "lora.dropout": (0, 1, False),
    "dora.dropout": (0, 1, False),
    "label_smoothing": (0, 1, False),
    "prefix_cache_gb": (0, None, True),
    "base_learning_rate": (0, None, True),
    "learning_rate": (0, None, True),
    "weight_decay": (0, None, True),
    "clip_norm": (0, None, True),
    "momentum": (0, 1, False),
    "beta1": (0, 1, False),
    "beta2": (0, 1, False),
    "epsilon": (0, None, True),
    **{f"bilstm.{name}": (1, None, True) for name in ("embedding", "size", "layers", "min_count")},
    **{f"textcnn.{name}": (1, None, True) for name in ("embedding", "filters", "min_count")},
}

CHOICES: dict[str, tuple[str, ...]] = {
    "truncation": ("head", "tail", "head_tail"),
    "packing": ("packed", "bucketed", "padded"),
    "optimizer": ("adam", "adamw", "sgd", "adafactor"),
    "schedule": ("linear", "cosine", "constant", "slanted_triangular"),
    "precision": ("auto", "float32", "bfloat16"),
    "parallel": ("auto", "jit", "pmap", "mesh"),
    "data.source": ("files", "tfds", "demo"),
    "data.augment": ("", "deletion", "swap", "crop"),
}


def check_ranges(c: Any) -> None:
    """Raise InputError for a field whose value is out of range, not one of its choices, or not finite."""
    if c.learning_rate is None:
        raise InputError("config: learning_rate is empty; config.resolve, which the programs call, fills in the method's default")
    for name, (low, high, inclusive) in RANGES.items():
        value = _value(c, name)
        if value is None:
            continue
        if not low <= value or not math.isfinite(value) or (high is not None and not (value <= high if inclusive else value < high)):
            bounds = f"at least {low}" + ("" if high is None else f" and {'at most' if inclusive else 'less than'} {high}")
            raise InputError(f"config: {name}={value} must be {bounds}")
    for name, known in CHOICES.items():
        value = _value(c, name)
        if value not in known:
            raise InputError(f"config: {name}={value!r} is not known; {nearest(str(value), filter(None, known))}")
    for name in _durations(c):
        if not math.isfinite(c[name]) or c[name] < 0 or (c[name] == 0 and name.startswith("total_")):
            raise InputError(f"config: {name}={c[name]:g} must be {'more than' if name.startswith('total_') else 'at least'} 0")


def _value(c: Any, name: str) -> Any:
    owner, _, field = name.rpartition(".")
    return (c[owner] if owner else c)[field]


def _durations(c: Any) -> Iterable[str]:
    """Yield the names of the duration fields that are set."""
    for duration in durations.DURATIONS:
        for unit in durations.UNITS:
            if c.get(f"{duration}_{unit}") is not None:
                yield f"{duration}_{unit}"
