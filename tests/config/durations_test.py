"""Durations in any unit."""

import pytest

from research.config import durations
from research.errors import InputError


def steps(total=200, **config):
    return durations.steps(config, "warmup", batch_size=32, epoch_steps=50, total=total)


@pytest.mark.parametrize(
    ("unit", "value", "expected"),
    [
        ("steps", 7, 7),
        ("epochs", 2.0, 100),
        ("epochs", 0.5, 25),
        ("examples", 320, 10),
        ("examples", 330, 10),
        ("percent", 10.0, 20),
        ("percent", 100.0, 200),
        # What is not nothing is at least a step.
        ("epochs", 0.001, 1),
        ("examples", 1, 1),
        ("percent", 0.01, 1),
        # Nothing is nothing in any unit.
        ("steps", 0, 0),
        ("epochs", 0.0, 0),
        ("examples", 0, 0),
        ("percent", 0.0, 0),
    ],
)
def test_every_unit_becomes_steps(unit, value, expected):
    got = steps(**{f"warmup_{unit}": value})
    assert got == expected and isinstance(got, int)


def test_percent_is_of_the_total_and_the_other_units_are_not():
    assert steps(total=400, warmup_percent=10.0) == 2 * steps(total=200, warmup_percent=10.0)
    for unit in ("steps", "epochs", "examples"):
        assert steps(total=400, **{f"warmup_{unit}": 64}) == steps(total=None, **{f"warmup_{unit}": 64})


def test_fields_that_are_empty_or_of_another_duration_do_not_count():
    assert steps(warmup_steps=None, warmup_epochs=None, warmup_percent=5.0, total_steps=3, eval_steps=4) == 10


def test_two_units_for_one_duration_are_an_error_even_where_they_agree():
    with pytest.raises(InputError, match="warmup_steps, warmup_epochs are two units for one duration"):
        steps(warmup_steps=50, warmup_epochs=1.0)
    with pytest.raises(InputError, match="two units"):
        steps(warmup_steps=0, warmup_percent=0.0)


def test_no_unit_is_an_error_that_lists_them():
    with pytest.raises(InputError, match="warmup_steps, warmup_epochs, warmup_examples, warmup_percent are all empty"):
        steps(warmup_steps=None, total_epochs=1.0)


@pytest.mark.parametrize("unit", durations.UNITS)
def test_a_negative_duration_is_an_error(unit):
    with pytest.raises(InputError, match=f"warmup_{unit}=-1 is negative"):
        steps(**{f"warmup_{unit}": -1})
