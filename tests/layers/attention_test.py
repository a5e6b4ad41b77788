"""Compare attention in chunks with the formula, differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import attention
from research.layers.dropout import Rate, keep_mask
from research.layers.precision import Precision

B, H, L, D, RATE = 4, 6, 8, 5, 0.2
# Limit of weights in a chunk -> heads in a chunk, of B * H: all heads, two rows, one row, three heads, one head.
CHUNKS = {B * H * L * L: 24, 2 * H * L * L: 12, H * L * L: 6, 3 * L * L: 3, 1: 1}


@pytest.fixture(scope="module")
def given():
    """Return queries, keys, values and the output's cotangent [B * H, L, D], a mask of two segments a row, and rows and columns."""
    random = np.random.default_rng(0)
    q, k, v, g = (random.normal(size=(B * H, L, D)).astype(np.float32) for _ in range(4))
    segments = np.arange(L)[None] >= np.arange(2, 2 + B)[:, None]
    mask = segments[:, None, :, None] == segments[:, None, None, :]
    rows = random.integers(0, 2**32, (B, H, L, 1), dtype=np.uint32)
    columns = np.broadcast_to(np.arange(L, dtype=np.uint32), (B, 1, 1, L))
    return [jnp.asarray(x) for x in (q, k, v, g, mask, rows, columns)]


def formula(q, k, v, mask, rows, columns, rate):
    scores = jnp.einsum("nqd,nkd->nqk", q, k, precision="highest").reshape(B, H, L, L) / np.sqrt(D)
    weights = jax.nn.softmax(jnp.where(mask, scores, -np.inf))
    weights = jnp.where(keep_mask(rows, columns, rate), weights / (1 - rate), 0) if rate else weights
    return jnp.einsum("nqk,nkd->nqd", weights.reshape(B * H, L, L), v, precision="highest")


def with_gradients(function, given):
    """Return the result of `function(q, k, v)` and the gradients of q, k and v."""
    q, k, v, g, *_ = given
    result, backward = jax.vjp(function, q, k, v)
    return result, *backward(g)


@pytest.mark.parametrize("rate", (0.0, RATE))
@pytest.mark.parametrize("weights", CHUNKS)
def test_in_chunks_the_result_and_gradients_are_those_of_the_formula(monkeypatch, given, weights, rate):
    monkeypatch.setattr(attention, "CHUNK", weights)
    mask, *salts = given[4:]
    salts = salts if rate else (None, None)
    assert attention._heads(B * H, H, L * L) == CHUNKS[weights]
    actual = with_gradients(lambda q, k, v: attention.attention(q, k, v, mask, *salts, Rate.of(rate) if rate else None, Precision()), given)
    expected = with_gradients(lambda q, k, v: formula(q, k, v, mask, *salts, rate), given)
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6)
    without_mask = with_gradients(lambda q, k, v: formula(q, k, v, np.ones_like(mask), *salts, rate), given)
    assert all(np.abs(x - y).max() > 1e-2 for x, y in zip(actual, without_mask, strict=True))


@pytest.mark.parametrize("weights", (B * H * L * L, H * L * L, 3 * L * L))
def test_bfloat16_in_chunks_equals_bfloat16_at_once_bit_for_bit(monkeypatch, given, weights):
    mask, *salts = given[4:]
    function = jax.jit(lambda q, k, v: attention.attention(q, k, v, mask, *salts, Rate.of(RATE), Precision("bfloat16")))
    at_once = with_gradients(function, given)
    monkeypatch.setattr(attention, "CHUNK", weights)
    for in_chunks, expected in zip(with_gradients(function, given), at_once, strict=True):
        np.testing.assert_array_equal(in_chunks, expected)
    exact = with_gradients(lambda q, k, v: formula(q, k, v, mask, *salts, RATE), given)
    assert all(1e-4 < np.abs(x - y).max() < 5e-2 for x, y in zip(at_once, exact, strict=True))


def test_a_second_derivative_is_an_error_in_chunks(monkeypatch, given):
    q, k, v, _, mask, *_ = given

    def slope(q):
        return jax.grad(lambda q: attention.attention(q, k, v, mask, None, None, None, Precision()).sum())(q).sum()

    assert np.isfinite(jax.grad(slope)(q)).all()  # all heads in one chunk
    monkeypatch.setattr(attention, "CHUNK", 1)
    assert np.isfinite(slope(q))
    with pytest.raises(NotImplementedError, match="attention in chunks"):
        jax.grad(slope)(q)
