"""Ready ablations, one question each, and the helper functions that they share."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from research.ablation import sweep as sweeps
from research.config import fields
from research.errors import InputError

LAYERS = {"tiny": 2, "minilm": 6, "bert-base": 12, "bert-large": 24}
SMOKE_STEPS = 12  # enough for all training phases of every method


def words(arg: str, **defaults: str) -> dict[str, str]:
    """Parse the words that most ablations have; `defaults` adds words and changes default values."""
    shared = {"task": "trec", "model": "minilm", "data": "files", "path": "", "seeds": "3", "examples": "8192"}
    return fields.words(arg, **{**shared, **defaults})


def base(chosen: dict[str, str], budget: dict[str, object] | None = None, **changes) -> ConfigDict:
    """Return the base config of all runs: the task's config with `changes` (`__` stands for a dot) and a training budget.

    `budget` sets durations and overrides the model's recipe. By default, runs train on `examples` examples and evaluate half-way and at
    the end. A smoke run trains for `SMOKE_STEPS` steps instead. Raises InputError if `examples` is not a positive whole number.
    """
    c = fields.base(chosen["task"], chosen)
    c.data.path = chosen["path"]
    c.max_length = 64
    fields.override(c, {name.replace("__", "."): value for name, value in changes.items()})
    fields.finish(c, chosen)
    if chosen["smoke"]:
        return fields.override(c, {"total_steps": SMOKE_STEPS})
    return fields.override(c, budget or {"total_examples": number(chosen, "examples"), "eval_percent": 50.0})


def number(chosen: dict[str, str], word: str) -> int:
    """Return the numeric value of a word. Raises InputError if it is not a positive whole number."""
    value = chosen[word]
    if not value.isdecimal() or not int(value):
        raise InputError(f"config argument {word}={value} must be a whole number from 1")
    return int(value)


def steps(chosen: dict[str, str]) -> int:
    """Return the training budget in steps, for training sets that may be smaller than a batch."""
    return SMOKE_STEPS if chosen["smoke"] else max(number(chosen, "examples") // 32, 1)


def seeds(chosen: dict[str, str]) -> list[sweeps.Overrides]:
    """Return a sweep over the number of seeds given in the words."""
    return sweeps.seeds(number(chosen, "seeds"))


def few(chosen: dict[str, str], values: Sequence) -> Sequence:
    """Return `values`, or only the first and the last of them in a smoke run."""
    return (values[0], values[-1]) if chosen["smoke"] else values


def layers(chosen: dict[str, str]) -> int:
    """Return the model's number of layers. Raises InputError for an unknown model without the word `layers`."""
    model = "tiny" if chosen["smoke"] else chosen["model"]
    if model not in LAYERS and not chosen["layers"]:
        raise InputError(f"the number of layers of {model!r} is not known; add layers=N to the config argument")
    return LAYERS.get(model) or number(chosen, "layers")
