"""Learning rates over steps, against the formulae."""

import math

import numpy as np
import pytest

from research.errors import InputError
from research.train import optimizer

AFTER = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "constant": lambda x: 1.0,
    "slanted_triangular": lambda x: 1 - x,
}
LOWEST = {"slanted_triangular": 1 / 32}


@pytest.mark.parametrize("name", optimizer.SCHEDULES)
@pytest.mark.parametrize(("warmup", "total"), [(0, 10), (4, 20), (1, 2), (19, 20)])
def test_every_step_has_the_formulas_rate(name, warmup, total):
    rate = optimizer.schedule(name, 3e-4, warmup, total)
    for step in range(total + 1):
        expected = step / warmup if step < warmup else AFTER[name]((step - warmup) / (total - warmup))
        lowest = LOWEST.get(name, 0.0)
        np.testing.assert_allclose(rate(step), 3e-4 * (lowest + (1 - lowest) * expected), rtol=1e-5, atol=1e-10)


def test_the_schedules_differ_between_the_ends():
    half = {name: float(optimizer.schedule(name, 1.0, 0, 8)(2)) for name in optimizer.SCHEDULES}
    assert half["linear"] < half["slanted_triangular"] < half["cosine"] < half["constant"]


@pytest.mark.parametrize("name", optimizer.SCHEDULES)
def test_a_single_step_without_warmup_has_the_full_rate(name):
    np.testing.assert_allclose(optimizer.schedule(name, 0.5, 0, 1)(0), 0.5)


@pytest.mark.parametrize(("warmup", "total"), [(10, 10), (11, 10), (1, 1), (1, 0), (-1, 5)])
def test_a_warmup_that_does_not_end_before_the_training_is_an_error(warmup, total):
    with pytest.raises(InputError, match=rf"warmup is {warmup} steps of {total}"):
        optimizer.schedule("linear", 1.0, warmup, total)
    optimizer.schedule("linear", 1.0, max(total - 1, 0), total)


def test_an_unknown_schedule_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'cosine'"):
        optimizer.schedule("cosin", 1.0, 0, 10)


def test_slanted_triangular_is_equation_3_of_ulmfit():
    """Compare with Howard & Ruder 2018, in the paper's notation: T iterations, cut_frac 0.1, ratio 32, largest rate 0.01."""
    T, cut_frac, ratio, largest = 200, 0.1, 32, 0.01
    cut = math.floor(T * cut_frac)
    rate = optimizer.schedule("slanted_triangular", largest, cut, T)
    for t in range(T + 1):
        p = t / cut if t < cut else 1 - (t - cut) / (cut * (1 / cut_frac - 1))
        np.testing.assert_allclose(rate(t), largest * (1 + p * (ratio - 1)) / ratio, rtol=1e-5)
