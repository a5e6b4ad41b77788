"""Tests of durations in several units."""

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
        # A duration above 0 is at least one step.
        ("epochs", 0.001, 1),
        ("examples", 1, 1),
        ("percent", 0.01, 1),
        # 0 is 0 steps in every unit.
        ("steps", 0, 0),
        ("epochs", 0.0, 0),
        ("examples", 0, 0),
        ("percent", 0.0, 0),
    ],
)
def test_every_unit_is_converted_to_steps(unit, value, expected):
    result = steps(**{f"warmup_{unit}": value})
    assert result == expected and isinstance(result, int)


def test_only_percent_depends_on_the_total():
    assert steps(total=400, warmup_percent=10.0) == 2 * steps(total=200, warmup_percent=10.0)
    for unit in ("steps", "epochs", "examples"):
        assert steps(total=400, **{f"warmup_{unit}": 64}) == steps(total=None, **{f"warmup_{unit}": 64})


def test_empty_fields_and_other_durations_are_ignored():
    assert steps(warmup_steps=None, warmup_epochs=None, warmup_percent=5.0, total_steps=3, eval_steps=4) == 10


def test_two_units_for_one_duration_are_an_error_even_where_they_agree():
    with pytest.raises(InputError, match="warmup_steps, warmup_epochs are two units for one duration"):
        steps(warmup_steps=50, warmup_epochs=1.0)
    with pytest.raises(InputError, match="two units"):
        steps(warmup_steps=0, warmup_percent=0.0)


def test_a_duration_without_a_unit_is_an_error_that_lists_the_units():
    with pytest.raises(InputError, match="warmup_steps, warmup_epochs, warmup_examples, warmup_percent are all empty"):
        steps(warmup_steps=None, total_epochs=1.0)


@pytest.mark.parametrize("unit", durations.UNITS)
def test_a_negative_duration_is_an_error(unit):
    with pytest.raises(InputError, match=f"warmup_{unit}=-1 is negative"):
        steps(**{f"warmup_{unit}": -1})
