"""One vector for each example of a row, beside NumPy; and what a reader changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import InputError
from research.models.heads import Classifier, pool
from research.models.output import EncoderOutput
from research.models.readers import OneStage

B, E, L, D = 2, 4, 12, 5
STATES = np.random.RandomState(0).normal(size=(B, L, D)).astype(np.float32) - 3.0  # all below 0, the value of places without tokens
SEGMENTS = np.array([np.repeat([1, 2, 3, 0], (3, 4, 1, 4)), np.repeat([1, 2, 3, 4], 3)], np.int32)
ANCHORS = np.array([[0, 3, 7, 0], [0, 3, 6, 9]], np.int32)
BATCH = {"segments": SEGMENTS, "example_starts": ANCHORS, "examples": np.arange(8, dtype=np.int32).reshape(B, E)}
HAVING = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "first": lambda x: x[0]}


def pooled(pooling, states=STATES, batch=BATCH):
    return np.asarray(jax.jit(lambda x: pool(EncoderOutput(x, ()), batch, pooling))(jnp.asarray(states)))


@pytest.mark.parametrize("pooling", HAVING)
def test_pooling_is_that_of_each_example_alone(pooling):
    got = pooled(pooling)
    assert got.shape == (B, E, D)
    for row, place in np.ndindex(B, E):
        if (SEGMENTS[row] == place + 1).any():
            np.testing.assert_allclose(got[row, place], HAVING[pooling](STATES[row, SEGMENTS[row] == place + 1]), atol=1e-6)
    others = [HAVING[other](STATES[1, :3]) for other in HAVING if other != pooling]
    assert all(np.abs(got[1, 0] - other).max() > 0.1 for other in others)


def test_the_last_token_is_the_last_that_is_not_padding_and_the_first_where_all_are():
    tokens = np.full((B, L), 7, np.int32)
    tokens[0, [1, 2, 3, 7]] = tokens[1, [5, 9, 10, 11]] = 0
    batch = BATCH | {"tokens": tokens}
    plain, read = (np.asarray(pool(EncoderOutput(jnp.asarray(STATES), ()), batch, "last", padding)) for padding in (None, 0))
    for got, places in ((plain, [[2, 6, 7], [2, 5, 8, 11]]), (read, [[0, 6, 7], [2, 4, 8, 9]])):
        for row, of_row in enumerate(places):
            assert np.array_equal(got[row, : len(of_row)], STATES[row, of_row])


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_a_place_without_an_example_is_zero_and_padding_is_not_pooled(pooling):
    got = pooled(pooling)
    assert np.all(got[0, 3] == 0.0) and np.all(got[:, :3] < 0.0)
    loud = np.where((SEGMENTS == 0)[..., None], 100.0, STATES).astype(np.float32)
    assert np.array_equal(pooled(pooling, loud), got)
    louder = np.where((SEGMENTS == 2)[..., None], 100.0, STATES).astype(np.float32)
    assert np.array_equal(pooled(pooling, louder)[:, [0, 2, 3]], got[:, [0, 2, 3]])
    assert np.all(pooled(pooling, louder)[:, 1] == 100.0)


def test_what_is_not_a_number_is_not_hidden_by_max():
    broken = STATES.copy()
    broken[1, 4] = np.nan
    assert np.isnan(pooled("max", broken)[1, 1]).all() and np.isfinite(np.delete(pooled("max", broken)[1], 1, 0)).all()


def test_the_gradient_of_max_goes_to_the_largest_of_each_feature():
    weights = np.random.RandomState(1).normal(size=(B, E, D)).astype(np.float32)
    got = jax.jit(jax.grad(lambda x: (pool(EncoderOutput(x, ()), BATCH, "max") * weights).sum()))(jnp.asarray(STATES))
    wanted = np.zeros_like(STATES)
    for row, place, feature in np.ndindex(B, E, D):
        members = np.flatnonzero(SEGMENTS[row] == place + 1)
        if len(members):
            wanted[row, members[STATES[row, members, feature].argmax()], feature] = weights[row, place, feature]
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_max_takes_no_room_for_each_pair_of_a_place_and_a_token():
    places, length = 16, 256
    states = jnp.zeros((4, length, 64))
    batch = {
        "segments": jnp.tile(jnp.repeat(jnp.arange(1, places + 1), length // places), (4, 1)),
        "example_starts": jnp.zeros((4, places), int),
    }

    def masked(x):
        members = batch["segments"][:, None, :] == jnp.arange(1, places + 1)[None, :, None]
        return jnp.where(members[..., None], x[:, None], -jnp.inf).max(2).sum()

    def room(loss):
        return jax.jit(jax.grad(loss)).lower(states).compile().memory_analysis().temp_size_in_bytes

    assert room(lambda x: pool(EncoderOutput(x, ()), batch, "max").sum()) < 4 * states.nbytes < room(masked)


@pytest.mark.parametrize(("pooling", "hint"), [("maxx", "did you mean 'max'"), ("pooler", "this encoder has no pooler")])
def test_a_pooling_that_there_is_not_is_refused(pooling, hint):
    with pytest.raises(InputError, match=hint):
        pooled(pooling)


def test_a_reader_makes_what_is_pooled():
    encoded = EncoderOutput(jnp.asarray(STATES), (jnp.asarray(STATES[::-1]),), jnp.zeros((B, E, D)))
    plain, reading = Classifier(3, "mean"), Classifier(3, "mean", reader=OneStage(0))
    params = plain.init(jax.random.key(0), encoded, BATCH)
    swapped = encoded.replace(last=encoded.stages[0])
    assert np.array_equal(reading.apply(params, encoded, BATCH), plain.apply(params, swapped, BATCH))
    assert not np.array_equal(reading.apply(params, encoded, BATCH), plain.apply(params, encoded, BATCH))
    with pytest.raises(InputError, match="pooling='pooler'.*use mean, first or max"):
        Classifier(3, "pooler", reader=OneStage(0)).init(jax.random.key(0), encoded, BATCH)
