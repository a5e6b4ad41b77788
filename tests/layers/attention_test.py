"""Attention piece by piece, beside the formula written in one line and differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers import attention
from research.layers.dropout import kept
from research.layers.precision import Precision

B, H, L, D, RATE = 4, 6, 8, 5, 0.2
# Weights a piece may have -> heads in a piece, of B * H: all, two rows, one row, three heads, one.
PIECES = {B * H * L * L: 24, 2 * H * L * L: 12, H * L * L: 6, 3 * L * L: 3, 1: 1}


@pytest.fixture(scope="module")
def given():
    """Queries, keys and values [B * H, L, D], the cotangent of the result, the mask of two segments a row, places for dropout."""
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
    weights = jnp.where(kept(rows, columns, rate), weights / (1 - rate), 0) if rate else weights
    return jnp.einsum("nqk,nkd->nqd", weights.reshape(B * H, L, L), v, precision="highest")


def both(function, given):
    """The result and the gradients of q, k and v."""
    q, k, v, g, *_ = given
    result, pull = jax.vjp(function, q, k, v)
    return result, *pull(g)


@pytest.mark.parametrize("rate", (0.0, RATE))
@pytest.mark.parametrize("weights", PIECES)
def test_in_pieces_it_is_the_formula_and_so_are_its_gradients(monkeypatch, given, weights, rate):
    monkeypatch.setattr(attention, "PIECE", weights)
    mask, *places = given[4:]
    places = places if rate else (None, None)
    assert attention._heads(B * H, H, L * L) == PIECES[weights]
    found = both(lambda q, k, v: attention.attention(q, k, v, mask, *places, rate, Precision()), given)
    for ours, wanted in zip(found, both(lambda q, k, v: formula(q, k, v, mask, *places, rate), given), strict=True):
        np.testing.assert_allclose(ours, wanted, atol=2e-6)
    open_mask = both(lambda q, k, v: formula(q, k, v, np.ones_like(mask), *places, rate), given)
    assert all(np.abs(ours - other).max() > 1e-2 for ours, other in zip(found, open_mask, strict=True))


@pytest.mark.parametrize("weights", (B * H * L * L, H * L * L, 3 * L * L))
def test_bfloat16_in_pieces_is_to_the_bit_bfloat16_at_once(monkeypatch, given, weights):
    mask, *places = given[4:]
    function = jax.jit(lambda q, k, v: attention.attention(q, k, v, mask, *places, RATE, Precision("bfloat16")))
    at_once = both(function, given)
    monkeypatch.setattr(attention, "PIECE", weights)
    for ours, wanted in zip(both(function, given), at_once, strict=True):
        np.testing.assert_array_equal(ours, wanted)
    exact = both(lambda q, k, v: formula(q, k, v, mask, *places, RATE), given)
    assert all(1e-4 < np.abs(ours - other).max() < 5e-2 for ours, other in zip(at_once, exact, strict=True))


def test_a_gradient_of_its_gradient_is_refused_and_not_zero(monkeypatch, given):
    q, k, v, _, mask, *_ = given

    def slope(q):
        return jax.grad(lambda q: attention.attention(q, k, v, mask, None, None, 0.0, Precision()).sum())(q).sum()

    assert np.isfinite(jax.grad(slope)(q)).all()  # at once
    monkeypatch.setattr(attention, "PIECE", 1)
    assert np.isfinite(slope(q))
    with pytest.raises(NotImplementedError, match="attention in pieces"):
        jax.grad(slope)(q)
