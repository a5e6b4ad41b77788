"""Learning rates over steps, against the formulae."""

import math

import numpy as np
import pytest

from research import optim
from research.errors import InputError

AFTER = {"linear": lambda x: 1 - x, "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2, "constant": lambda x: 1.0}


@pytest.mark.parametrize("name", optim.SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (4, 20), (1, 2), (19, 20)])
def test_every_step_has_the_formulas_rate(name, warmup, total):
    rate = optim.schedule(name, 3e-4, warmup, total)
    for step in range(total + 1):
        expected = step / warmup if step < warmup else AFTER[name]((step - warmup) / (total - warmup))
        np.testing.assert_allclose(rate(step), 3e-4 * expected, rtol=1e-5, atol=1e-10)


def test_the_schedules_differ_between_the_ends():
    half = {name: float(optim.schedule(name, 1.0, 0, 8)(2)) for name in optim.SCHEDULES}
    assert half["linear"] < half["cosine"] < half["constant"]


@pytest.mark.parametrize("name", optim.SCHEDULES)
def test_a_single_step_without_warmup_has_the_full_rate(name):
    np.testing.assert_allclose(optim.schedule(name, 0.5, 0, 1)(0), 0.5)


@pytest.mark.parametrize(("warmup", "total"), [(10, 10), (11, 10), (1, 1), (1, 0), (-1, 5)])
def test_a_warmup_that_does_not_end_before_the_training_is_an_error(warmup, total):
    with pytest.raises(InputError, match=rf"warmup is {warmup} steps of {total}"):
        optim.schedule("linear", 1.0, warmup, total)
    optim.schedule("linear", 1.0, max(total - 1, 0), total)


def test_an_unknown_schedule_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        optim.schedule("cosin", 1.0, 0, 10)
