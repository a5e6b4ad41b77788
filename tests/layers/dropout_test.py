import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import transformer
from research.layers.dropout import Dropout, dropout, mix, token_salt


class TwoSites(nn.Module):
    """Two dropout modules with the same input, as in a layer."""

    rate: float = 0.5

    @nn.compact
    def __call__(self, x, rows):
        return Dropout(self.rate)(x, rows), Dropout(self.rate)(x, rows)


def salts(examples, length):
    """Return the salts of `length` tokens for each example, one example a row: uint32 [B, L]."""
    positions = np.broadcast_to(np.arange(length, dtype=np.int32), (len(examples), length))
    return token_salt({"segments": np.ones_like(positions), "positions": positions, "examples": np.array(examples, np.int32)[:, None]})


def masks(key=0, examples=range(64), length=32, features=256, rate=0.5):
    """Return the masks of elements that two dropout modules keep: bool [2, B, L, D]."""
    x = jnp.ones((len(examples), length, features))
    rows = salts(list(examples), length)[:, :, None]
    return np.stack(TwoSites(rate).apply({}, x, rows, rngs={"dropout": jax.random.key(key)})) != 0


def chi_square(a, b):
    """Return the chi-square statistic of two masks. If they are independent, it is below 15 with a probability of 0.9999."""
    table = np.array([[np.sum((a == i) & (b == j)) for j in (0, 1)] for i in (0, 1)], float)
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    return ((table - expected) ** 2 / expected).sum()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_fraction_of_dropped_elements_is_the_rate_and_the_mean_is_unchanged(rate):
    keep = masks(rate=rate)
    deviation = np.sqrt(rate * (1 - rate) / keep.size)
    assert abs((1 - keep.mean()) - rate) < 4 * deviation
    x = jnp.ones((512, 512))
    dropped = Dropout(rate).apply({}, x, mix(jnp.arange(512, dtype=jnp.uint32))[:, None], rngs={"dropout": jax.random.key(0)})
    np.testing.assert_allclose(np.unique(dropped), [0.0, 1 / (1 - rate)], rtol=1e-6)
    assert abs(dropped.mean() - 1.0) < 4 * np.sqrt(rate / (1 - rate) / x.size)


def test_every_row_and_every_feature_is_dropped_at_the_rate():
    keep = masks(rate=0.1)[0].reshape(-1, 256)
    for axis in (0, 1):
        n = keep.shape[axis]
        z = (keep.mean(axis) - 0.9) / np.sqrt(0.09 / n)
        assert np.abs(z).max() < 6 and 0.8 < z.std() < 1.2


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_neighbours_are_independent(rate):
    keep, other_step = masks(rate=rate), masks(key=1, rate=rate)
    pairs = {"sites": (keep[0], keep[1]), "steps": (keep, other_step)}
    for distance in (1, 2, 3, 16):
        pairs[f"features {distance}"] = keep[..., distance:], keep[..., :-distance]
        pairs[f"tokens {distance}"] = keep[:, :, distance:], keep[:, :, :-distance]
        pairs[f"examples {distance}"] = keep[:, distance:], keep[:, :-distance]
        pairs[f"diagonals {distance}"] = keep[:, :, distance:, distance:], keep[:, :, :-distance, :-distance]
    assert {name: x for name, (a, b) in pairs.items() if (x := chi_square(a, b)) > 15} == {}


def test_the_check_of_independence_detects_a_dependence_of_one_percent():
    a = masks()[0]
    b = np.where(np.random.RandomState(0).uniform(size=a.shape) < 0.01, a, masks(key=1)[0])
    assert chi_square(a, b) > 15


def test_a_mask_depends_on_the_key_alone_for_the_same_examples():
    assert np.array_equal(masks(), masks())
    assert not np.array_equal(masks(), masks(key=1))


def test_a_mask_depends_on_the_example_and_not_on_its_row():
    keep = masks(examples=[3, 9, 4], length=8)
    assert np.array_equal(keep[:, 1:], masks(examples=[9, 4], length=8))
    assert np.array_equal(keep[:, :, :5], masks(examples=[3, 9, 4], length=5)), "nor on the length of rows"
    assert not np.array_equal(keep[:, 0], keep[:, 1])


def test_packed_tokens_have_the_salts_of_padded_ones():
    padded = salts([7, 30], 6)
    batch = {
        "segments": np.array([[1, 1, 1, 1, 2, 2, 2, 0]], np.int32),
        "positions": np.array([[0, 1, 2, 3, 0, 1, 2, 0]], np.int32),
        "examples": np.array([[30, 7]], np.int32),
    }
    packed = token_salt(batch)[0]
    assert np.array_equal(packed[:4], padded[1, :4]) and np.array_equal(packed[4:7], padded[0, :3])
    assert len(np.unique(padded)) == padded.size


def test_salts_of_many_tokens_hardly_ever_collide():
    many = np.asarray(salts(list(range(4000)), 128))
    assert many.size - len(np.unique(many)) < 100, "2 ** 19 random values of 2 ** 32 have 31 collisions on average"


def test_the_gradient_has_the_same_mask():
    x = jax.random.normal(jax.random.key(1), (64, 32))
    rows, columns = mix(jnp.arange(64, dtype=jnp.uint32))[:, None], jnp.arange(32, dtype=jnp.uint32)[None]
    scale = jax.random.normal(jax.random.key(2), x.shape)
    gradient = jax.grad(lambda x: jnp.sum(scale * dropout(x, rows, columns, 0.3)))(x)
    keep = np.asarray(dropout(jnp.ones_like(x), rows, columns, 0.3)) != 0
    np.testing.assert_allclose(gradient, np.where(keep, scale / 0.7, 0.0), rtol=1e-6)
    assert 0.6 < keep.mean() < 0.8


def test_the_gradient_of_the_module_has_the_same_mask():
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
    rows, columns = transformer.attention_salts(batch, salts(list(range(64)), 32), 8)
    weights = jnp.ones((64, 8, 32, 32))
    keep = np.asarray(Dropout(0.5).apply({}, weights, rows, columns, rngs={"dropout": jax.random.key(0)})) != 0
    pairs = {axis: (np.take(keep, range(1, n), axis), np.take(keep, range(n - 1), axis)) for axis, n in enumerate(keep.shape)}
    assert {axis: x for axis, (a, b) in pairs.items() if (x := chi_square(a, b)) > 15} == {}
    assert abs(keep.mean() - 0.5) < 4 * 0.5 / np.sqrt(keep.size)
