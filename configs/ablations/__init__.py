"""Ready ablations, a question each; and what their words, bases and sweeps share."""

from collections.abc import Sequence

from ml_collections import ConfigDict

from research.ablation import sweep as sweeps
from research.config import fields
from research.errors import InputError

LAYERS = {"tiny": 2, "minilm": 6, "bert-base": 12, "bert-large": 24}
SMOKE_STEPS = 12  # room for the phases of every method


def words(arg: str, **defaults: str) -> dict[str, str]:
    """The words that most ablations have, and those that `defaults` adds or gives another default."""
    shared = {"task": "trec", "model": "minilm", "data": "files", "path": "", "seeds": "3", "examples": "8192"}
    return fields.words(arg, **{**shared, **defaults})


def base(chosen: dict[str, str], budget: dict[str, object] | None = None, **changes) -> ConfigDict:
    """The config that all runs begin with: the task's, `changes` to it (`__` stands for a dot), and how long runs train.

    `budget` are the durations that say so, whatever suits the model: by default `examples` are seen, and half-way and at the end it is
    evaluated. A smoke run has `SMOKE_STEPS` steps instead. Raises InputError where `examples` is no number.
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
    """The value of a word that is a number. Raises InputError where it is none, or 0."""
    value = chosen[word]
    if not value.isdecimal() or not int(value):
        raise InputError(f"config argument {word}={value} must be a whole number from 1")
    return int(value)


def steps(chosen: dict[str, str]) -> int:
    """The budget as a number of steps, for training sets that may be smaller than a batch."""
    return SMOKE_STEPS if chosen["smoke"] else max(number(chosen, "examples") // 32, 1)


def seeds(chosen: dict[str, str]) -> list[sweeps.Overrides]:
    """As many seeds as the words say."""
    return sweeps.seeds(number(chosen, "seeds"))


def few(chosen: dict[str, str], values: Sequence) -> Sequence:
    """`values`; in a smoke run, the first and the last of them."""
    return (values[0], values[-1]) if chosen["smoke"] else values


def layers(chosen: dict[str, str]) -> int:
    """How many layers the model has. Raises InputError where neither its name nor the word `layers` says."""
    model = "tiny" if chosen["smoke"] else chosen["model"]
    if model not in LAYERS and not chosen["layers"]:
        raise InputError(f"how many layers {model!r} has is not known here; add layers=N")
    return LAYERS.get(model) or number(chosen, "layers")
