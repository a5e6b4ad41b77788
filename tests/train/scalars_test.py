"""The key by which runs share compiled programs: what a program depends on is in it."""

import pytest

from research.adapt.methods import METHODS
from research.config import durations, fields
from research.train.scalars import NO_PROGRAM, structure
from tests import runs


def key(method, **changes):
    return structure(runs.build_model(runs.config(method=method, **changes), ("a", "b")))


@pytest.mark.parametrize(
    ("method", "option", "value"),
    [("parallel_adapter", "parallel_adapter__scale", 8.0), ("lora", "lora__alpha", 1.0), ("full", "precision", "bfloat16")],
)
def test_what_a_program_computes_is_in_the_key(method, option, value):
    changes = {"precision": "float32"} | {option: value}
    assert key(method, precision="float32") != key(method, **changes)
    assert key(method, precision="float32") == key(method, precision="float32", seed=3, learning_rate=0.5, dropout=0.3, total_steps=7)


def test_every_field_that_is_not_in_the_key_exists_and_no_option_of_a_method_is_among_them():
    names = {name.partition(".")[0] for name in fields.field_names(fields.base("imdb", fields.words("demo")))}
    assert names | {"total_percent"} >= NO_PROGRAM
    phases = {f"phase_{unit}" for unit in durations.UNITS}
    assert not {option for row in METHODS.values() for option in row.options} & (NO_PROGRAM - phases)
