"""Compare pooling with NumPy, and test heads with a reader."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import InputError
from research.models.heads import Classifier, pool
from research.models.output import EncoderOutput
from research.models.readers import OneStage

B, E, L, D = 2, 4, 12, 5
STATES = np.random.RandomState(0).normal(size=(B, L, D)).astype(np.float32) - 3.0  # all below 0, the value for missing examples
SEGMENTS = np.array([np.repeat([1, 2, 3, 0], (3, 4, 1, 4)), np.repeat([1, 2, 3, 4], 3)], np.int32)
STARTS = np.array([[0, 3, 7, 0], [0, 3, 6, 9]], np.int32)
BATCH = {"segments": SEGMENTS, "example_starts": STARTS, "examples": np.arange(8, dtype=np.int32).reshape(B, E)}
HAVING = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "first": lambda x: x[0]}


def pooled(pooling, states=STATES, batch=BATCH):
    return np.asarray(jax.jit(lambda x: pool(EncoderOutput(x, ()), batch, pooling))(jnp.asarray(states)))


@pytest.mark.parametrize("pooling", HAVING)
def test_pooling_matches_numpy_for_each_example(pooling):
    actual = pooled(pooling)
    assert actual.shape == (B, E, D)
    for row, place in np.ndindex(B, E):
        if (SEGMENTS[row] == place + 1).any():
            np.testing.assert_allclose(actual[row, place], HAVING[pooling](STATES[row, SEGMENTS[row] == place + 1]), atol=1e-6)
    others = [HAVING[other](STATES[1, :3]) for other in HAVING if other != pooling]
    assert all(np.abs(actual[1, 0] - other).max() > 0.1 for other in others)


def test_last_pooling_skips_padding_and_takes_the_first_token_if_all_are_padding():
    tokens = np.full((B, L), 7, np.int32)
    tokens[0, [1, 2, 3, 7]] = tokens[1, [5, 9, 10, 11]] = 0
    batch = BATCH | {"tokens": tokens}
    without_padding, skipping = (np.asarray(pool(EncoderOutput(jnp.asarray(STATES), ()), batch, "last", padding)) for padding in (None, 0))
    for actual, indices in ((without_padding, [[2, 6, 7], [2, 5, 8, 11]]), (skipping, [[0, 6, 7], [2, 4, 8, 9]])):
        for row, of_row in enumerate(indices):
            assert np.array_equal(actual[row, : len(of_row)], STATES[row, of_row])


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_missing_example_is_zero_and_padding_is_not_pooled(pooling):
    actual = pooled(pooling)
    assert np.all(actual[0, 3] == 0.0) and np.all(actual[:, :3] < 0.0)
    other_padding = np.where((SEGMENTS == 0)[..., None], 100.0, STATES).astype(np.float32)
    assert np.array_equal(pooled(pooling, other_padding), actual)
    other_second = np.where((SEGMENTS == 2)[..., None], 100.0, STATES).astype(np.float32)
    assert np.array_equal(pooled(pooling, other_second)[:, [0, 2, 3]], actual[:, [0, 2, 3]])
    assert np.all(pooled(pooling, other_second)[:, 1] == 100.0)


def test_max_does_not_hide_nan():
    broken = STATES.copy()
    broken[1, 4] = np.nan
    assert np.isnan(pooled("max", broken)[1, 1]).all() and np.isfinite(np.delete(pooled("max", broken)[1], 1, 0)).all()


def test_the_gradient_of_max_goes_to_the_largest_of_each_feature():
    weights = np.random.RandomState(1).normal(size=(B, E, D)).astype(np.float32)
    actual = jax.jit(jax.grad(lambda x: (pool(EncoderOutput(x, ()), BATCH, "max") * weights).sum()))(jnp.asarray(STATES))
    expected = np.zeros_like(STATES)
    for row, place, feature in np.ndindex(B, E, D):
        members = np.flatnonzero(SEGMENTS[row] == place + 1)
        if len(members):
            expected[row, members[STATES[row, members, feature].argmax()], feature] = weights[row, place, feature]
    np.testing.assert_allclose(actual, expected, atol=1e-6)


def test_max_needs_no_memory_for_each_pair_of_an_example_and_a_token():
    examples, length = 16, 256
    states = jnp.zeros((4, length, 64))
    batch = {
        "segments": jnp.tile(jnp.repeat(jnp.arange(1, examples + 1), length // examples), (4, 1)),
        "example_starts": jnp.zeros((4, examples), int),
    }

    def masked(x):
        members = batch["segments"][:, None, :] == jnp.arange(1, examples + 1)[None, :, None]
        return jnp.where(members[..., None], x[:, None], -jnp.inf).max(2).sum()

    def memory(loss):
        return jax.jit(jax.grad(loss)).lower(states).compile().memory_analysis().temp_size_in_bytes

    assert memory(lambda x: pool(EncoderOutput(x, ()), batch, "max").sum()) < 4 * states.nbytes < memory(masked)


@pytest.mark.parametrize(("pooling", "hint"), [("maxx", "did you mean 'max'"), ("pooler", "this encoder has no pooler")])
def test_an_unknown_pooling_is_an_error(pooling, hint):
    with pytest.raises(InputError, match=hint):
        pooled(pooling)


def test_the_features_of_a_reader_are_pooled():
    encoded = EncoderOutput(jnp.asarray(STATES), (jnp.asarray(STATES[::-1]),), jnp.zeros((B, E, D)))
    last_stage, reading = Classifier(3, "mean"), Classifier(3, "mean", reader=OneStage(0))
    params = last_stage.init(jax.random.key(0), encoded, BATCH)
    swapped = encoded.replace(last=encoded.stages[0])
    assert np.array_equal(reading.apply(params, encoded, BATCH), last_stage.apply(params, swapped, BATCH))
    assert not np.array_equal(reading.apply(params, encoded, BATCH), last_stage.apply(params, encoded, BATCH))
    with pytest.raises(InputError, match="pooling='pooler'.*use mean, first or max"):
        Classifier(3, "pooler", reader=OneStage(0)).init(jax.random.key(0), encoded, BATCH)
