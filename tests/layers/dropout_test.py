import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import transformer
from research.layers.dropout import Dropout, dropout, mix, token_salt


class TwoSites(nn.Module):
    """Two dropouts of one input, as in a layer."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, x, rows):
        return Dropout(self.rate)(x, rows), Dropout(self.rate)(x, rows)


def salts(examples, length):
    """A row for each example."""
    places = np.broadcast_to(np.arange(length, dtype=np.int32), (len(examples), length))
    return token_salt({"segments": np.ones_like(places), "positions": places, "examples": np.array(examples, np.int32)[:, None]})


def masks(key=0, examples=range(64), length=32, features=256, rate=0.5):
    """What two sites keep: bool [2 sites, B, L, D]."""
    x = jnp.ones((len(examples), length, features))
    rows = salts(list(examples), length)[:, :, None]
    return np.stack(TwoSites(rate).apply({}, x, rows, rngs={"dropout": jax.random.key(key)})) != 0


def chi_square(a, b):
    """Of the 2 x 2 table of two masks: below 15 with a probability of 0.9999 where they are independent."""
    table = np.array([[np.sum((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)], float)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return ((table - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_rate_is_kept_and_so_is_the_mean(rate):
    kept = masks(rate=rate)
    deviation = np.sqrt(rate * (1 - rate) / kept.size)
    assert abs((1 - kept.mean()) - rate) < 4 * deviation
    x = jnp.ones((512, 512))
    dropped = Dropout(rate).apply({}, x, mix(jnp.arange(512, dtype=jnp.uint32))[:, None], rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(np.unique(dropped), [0.0, 1 / (1 - rate)], rtol=1e-6)
    assert abs(dropped.mean() - 1.0) < 4 * np.sqrt(rate / (1 - rate) / x.size)


def test_every_row_and_every_feature_is_dropped_at_the_rate():
    kept = masks(rate=0.1)[0].reshape(-1, 256)
    for axis in (0, 1):
        n = kept.shape[axis]
        z = (kept.mean(axis) - 0.9) / np.sqrt(0.09 / n)
        assert np.abs(z).max() < 6 and 0.8 < z.std() < 1.2


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_neighbours_are_independent(rate):
    kept, later = masks(rate=rate), masks(key=1, rate=rate)
    pairs = {"sites": (kept[0], kept[1]), "steps": (kept, later)}
    for distance in (1, 2, 3, 16):
        pairs[f"features {distance}"] = kept[..., distance:], kept[..., :-distance]
        pairs[f"tokens {distance}"] = kept[:, :, distance:], kept[:, :, :-distance]
        pairs[f"examples {distance}"] = kept[:, distance:], kept[:, :-distance]
        pairs[f"diagonals {distance}"] = kept[:, :, distance:, distance:], kept[:, :, :-distance, :-distance]
    assert {name: x for name, (a, b) in pairs.items() if (x := chi_square(a, b)) > 15} == {}


def test_the_check_of_independence_sees_a_dependence_of_one_percent():
    a = masks()[0]
    b = np.where(np.random.RandomState(0).uniform(size=a.shape) < 0.01, a, masks(key=1)[0])
    assert chi_square(a, b) > 15


def test_a_mask_is_the_same_again_and_another_for_another_key():
    assert np.array_equal(masks(), masks())
    assert not np.array_equal(masks(), masks(key=1))


def test_a_mask_belongs_to_the_example_and_not_to_its_place():
    kept = masks(examples=[3, 9, 4], length=8)
    assert np.array_equal(kept[:, 1:], masks(examples=[9, 4], length=8))
    assert np.array_equal(kept[:, :, :5], masks(examples=[3, 9, 4], length=5)), "nor to the padding"
    assert not np.array_equal(kept[:, 0], kept[:, 1])


def test_packed_tokens_have_the_salts_of_padded_ones():
    alone = salts([7, 30], 6)
    batch = {
        "segments": np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32),
        "positions": np.array([[0, 1, 2, 3, 0, 1, 2, 0]], np.int32),
        "examples": np.array([[30, 7]], np.int32),
    }
    together = token_salt(batch)[0]
    assert np.array_equal(together[:4], alone[1, :4]) and np.array_equal(together[4:7], alone[0, :3])
    assert len(np.unique(alone)) == alone.size


def test_salts_of_many_tokens_hardly_ever_meet():
    many = np.asarray(salts(list(range(4000)), 128))
    assert many.size - len(np.unique(many)) < 100, "2 ** 19 of 2 ** 32 values meet 31 times by chance"


def test_the_gradient_goes_through_the_same_mask():
    x = jax.random.normal(jax.random.key(1), (64, 32))
    rows, columns = mix(jnp.arange(64, dtype=jnp.uint32))[:, None], jnp.arange(32, dtype=jnp.uint32)[None]
    scale = jax.random.normal(jax.random.key(2), x.shape)
    gradient = jax.grad(lambda x: jnp.sum(scale * dropout(x, rows, columns, 0.3)))(x)
    kept = np.asarray(dropout(jnp.ones_like(x), rows, columns, 0.3)) != 0
    np.testing.assert_allclose(gradient, np.where(kept, scale / 0.7, 0.0), rtol=1e-6)
    assert 0.6 < kept.mean() < 0.8


def test_the_gradient_of_the_module_goes_through_its_mask():
    x, rows = jnp.full((16, 8, 32), 2.0), salts(list(range(16)), 8)[:, :, None]

    def out(x):
        return Dropout(0.5).apply({}, x, rows, rngs={"dropout": jax.random.key(0)})

    assert np.array_equal(jax.grad(lambda x: out(x).sum())(x), out(x) / x)


def test_nothing_is_dropped_without_a_key_or_at_rate_zero():
    x, rows = jnp.ones((4, 8, 16)), salts([0, 1, 2, 3], 8)[:, :, None]
    assert np.array_equal(Dropout(0.5).apply({}, x, rows), x)
    assert np.array_equal(Dropout(0.0).apply({}, x, rows, rngs={"dropout": jax.random.key(0)}), x)
    assert not np.array_equal(Dropout(0.5).apply({}, x, rows, rngs={"dropout": jax.random.key(0)}), x)


def test_heads_and_keys_of_attention_are_independent():
    batch = {"positions": np.broadcast_to(np.arange(32, dtype=np.int32), (64, 32))}
    rows, columns = transformer.places(batch, salts(list(range(64)), 32), 8)
    weights = jnp.ones((64, 8, 32, 32))
    kept = np.asarray(Dropout(0.5).apply({}, weights, rows, columns, rngs={"dropout": jax.random.key(0)})) != 0
    pairs = {axis: (np.take(kept, range(1, n), axis), np.take(kept, range(n - 1), axis)) for axis, n in enumerate(kept.shape)}
    assert {axis: x for axis, (a, b) in pairs.items() if (x := chi_square(a, b)) > 15} == {}
    assert abs(kept.mean() - 0.5) < 4 * 0.5 / np.sqrt(kept.size)
