"""Hyperparameters that a compiled step takes as arguments, and the key by which runs share compiled steps."""

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from research.config.durations import DURATIONS, UNITS
from research.layers.dropout import Rate
from research.params.tree import flatten, merge

Scalars = Mapping[str, Any]
DROPOUT = ("dropout", "attention_dropout")  # fields of encoders and heads
# Fields and groups of the config that compiled programs do not depend on, including the scalars.
NO_PROGRAM = {"seed", "data", "weights", "task", "model", "metric", "positive", "smoke", "parallel", "prefix_cache_gb"}
NO_PROGRAM |= {"learning_rate", "base_learning_rate", "schedule", "weight_decay", "label_smoothing", *DROPOUT}
NO_PROGRAM |= {"batch_size", "eval_batch_tokens", "max_length", "truncation", "truncation_head", "packing"}
NO_PROGRAM |= {f"{duration}_{unit}" for duration in DURATIONS for unit in UNITS}


def scalars(config: Any, learning_rate: float) -> Scalars:
    """Return `learning_rate`, `weight_decay` and `label_smoothing` as float32 [], and `dropout` and `attention_dropout` as `Rate`.

    A dropout rate of 0 is left out: a step without dropout is a different program.
    """
    attention = config.dropout if config.attention_dropout is None else config.attention_dropout
    rates = {"dropout": config.dropout, "attention_dropout": attention}
    numbers = {"learning_rate": learning_rate, "weight_decay": config.weight_decay, "label_smoothing": config.label_smoothing}
    return {name: np.float32(x) for name, x in numbers.items()} | {name: Rate.of(rate) for name, rate in rates.items() if rate}


def with_scalars(model: Any, values: Scalars) -> Any:
    """Return the adapted model with the dropout rates and the label smoothing of `values`, which may be arguments of a program."""

    def with_rates(module: nn.Module) -> nn.Module:
        return module.clone(**{name: values[name] for name in DROPOUT if name in values and hasattr(module, name)})

    encoder, head = with_rates(model.encoder), with_rates(model.head)
    return dataclasses.replace(model, encoder=encoder, head=head, label_smoothing=values["label_smoothing"])


def structure(model: Any) -> str:
    """Return a digest of all that the programs of an adapted model depend on, except batch shapes, scalars and parameter values."""
    c = {name: value for name, value in model.config.to_dict().items() if name not in NO_PROGRAM}
    task, modules, drops = (type(model.task).__name__, model.task.learnt), [], []
    for module in (model.encoder, model.head):
        drops.append({name: bool(getattr(module, name)) for name in DROPOUT if hasattr(module, name)})
        modules.append(module.clone(**dict.fromkeys(drops[-1], 0.0)))
    shapes = {name: (leaf.shape, str(leaf.dtype)) for name, leaf in flatten(merge(model.trainable, model.frozen)).items()}
    return hashlib.sha256(repr((c, task, drops, modules, shapes, model.plan)).encode()).hexdigest()
