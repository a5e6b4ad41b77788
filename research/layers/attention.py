"""Softmax attention between the tokens of a segment, with a gradient of its own that keeps queries, keys and values and nothing else.

The weights [rows, heads, L, M] are the largest thing in a Transformer. On a CPU they are never whole: forward and backward go through
them in pieces that stay in the cache, and the backward pass computes them again (as in Dao et al. 2022, but by rows and heads). What
that saves in memory traffic is many times what the products cost. Other devices compute all at once.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers.dropout import kept, placed
from research.layers.precision import Precision
from research.layers.remat import zero_dependent_on

MASKED = -1e9  # finite, so that a row without any token still gives finite numbers; exp() of it is exactly 0
PIECE = 1 << 18  # weights of a piece: 1 MiB in float32, which leaves room in a core's second-level cache


class Core(nn.Module):
    """Attention of queries [B * H, L, d] to keys and values [B * H, M, d] where `mask` [B, 1, L, M] is true: [B * H, L, d].

    `rows` [B, H, L, 1] and `columns` [B, 1, 1, M] are the places of the weights, for dropout. `bias` [B * H, L, M] is added to the
    products of queries and keys over sqrt(d). It has no parameters.
    """

    precision: Precision
    dropout: float

    def __call__(self, q, k, v, mask: jax.Array, rows: jax.Array | None, columns: jax.Array | None, bias: jax.Array | None = None):
        drops = rows is not None and self.dropout > 0
        if bias is not None:
            rate, rows = (self.dropout, placed(self, rows)) if drops else (0.0, None)
            return biased(q, k, v, mask, rows, columns, bias, rate, self.precision)
        if self.precision.fuses_attention and not drops:  # the device's kernel cannot drop by our hash
            return _whole_kernel(self.precision, q, k, v, mask)
        if not drops:
            return attention(q, k, v, mask, None, None, 0.0, self.precision)
        return attention(q, k, v, mask, placed(self, rows), columns, self.dropout, self.precision)


def biased(q, k, v, mask, rows, columns, bias: jax.Array, rate: float, precision: Precision) -> jax.Array:
    """drop(softmax(q k^T / sqrt(d) + bias)) v, as in `Core`, all at once: the bias is as large as the weights."""
    _, dropped = _weights(q * q.shape[-1] ** -0.5, k, mask, rows, columns, rate, precision, bias)
    return precision.einsum("nqk,nkd->nqd", dropped, v)


def _whole_kernel(precision: Precision, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    (N, L, d), B = q.shape, mask.shape[0]
    y = precision.attention(*(x.reshape(B, N // B, -1, d).swapaxes(1, 2) for x in (q, k, v)), mask)
    return y.swapaxes(1, 2).reshape(N, L, d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7))
def attention(q, k, v, mask, rows, columns, rate: float, precision: Precision) -> jax.Array:
    """drop(softmax(q k^T / sqrt(d))) v, as in `Core`; `rows` and `columns` are None where `rate` is 0. All float32, given and taken."""
    return _forward(q, k, v, mask, rows, columns, rate, precision)[0]


def _forward(q, k, v, mask, rows, columns, rate, precision):
    low = tuple(precision.rounded(x) for x in (q * q.shape[-1] ** -0.5, k, v))

    def piece(q, k, v, mask, rows, columns):
        _, dropped = _weights(q, k, mask, rows, columns, rate, precision)
        return (precision.einsum("nqk,nkd->nqd", dropped, v),)

    (y,) = _in_pieces(piece, low, (mask, rows, columns))
    return y, (*low, mask, rows, columns)


def _backward(rate, precision, residuals, g):
    q, k, v, *places = residuals

    def piece(q, k, v, g, mask, rows, columns):
        weights, dropped = _weights(q, k, mask, rows, columns, rate, precision)
        grad = precision.einsum("nqd,nkd->nqk", g, v)
        if rate:
            grad = jnp.where(kept(rows, columns, rate).reshape(grad.shape), grad * (1.0 / (1.0 - rate)), 0.0)
        grad = weights * (grad - (grad * weights).sum(-1, keepdims=True))
        return (
            precision.einsum("nqk,nkd->nqd", grad, k),
            precision.einsum("nqk,nqd->nkd", grad, q),
            precision.einsum("nqk,nqd->nkd", dropped, g),
        )

    grad_q, grad_k, grad_v = _in_pieces(piece, (q, k, v, g.astype(precision.name)), places)
    return grad_q * q.shape[-1] ** -0.5, grad_k, grad_v, None, None, None


attention.defvjp(_forward, _backward)


def _weights(q, k, mask, rows, columns, rate, precision, bias=None):
    """Weights [n, L, M] of a piece, and the same after dropout; `mask` is [r, 1, L, M] with n / r heads."""
    scores = precision.einsum("nqd,nkd->nqk", q, k)
    scores = scores if bias is None else scores + bias
    weights = jax.nn.softmax(jnp.where(mask, scores.reshape(mask.shape[0], -1, *mask.shape[2:]), MASKED))
    dropped = jnp.where(kept(rows, columns, rate), weights * (1.0 / (1.0 - rate)), 0.0) if rate else weights
    return weights.reshape(scores.shape), dropped.reshape(scores.shape)


def _in_pieces(function: Callable, whole: tuple, places: tuple) -> tuple:
    """`function` of all at once or, on a CPU, piece after piece of at most `PIECE` weights where that can be had.

    `whole` are [B * H, ...]; `places` are mask, rows, columns, which have B first, or None.
    """
    mask, rows, columns = places
    N, B = whole[0].shape[0], mask.shape[0]
    size = _heads(N, N // B, mask.shape[2] * mask.shape[3]) if jax.default_backend() == "cpu" else N
    if size == N:
        return function(*whole, mask, rows, columns)
    r, pieces = max(size * B // N, 1), N // size
    by_rows = [None if x is None else x.reshape(B // r, r, *x.shape[1:]) for x in (mask, columns)]
    cut = [_bits(x).reshape(pieces, size, *x.shape[1:]) for x in whole]
    rows = None if rows is None else rows.reshape(pieces, r, size // r, *rows.shape[2:])

    def of_piece(args):
        number, rows, *parts = args
        mask, columns = (None if x is None else x[number * size * B // N // r] for x in by_rows)
        parts = (jax.lax.bitcast_convert_type(part, x.dtype) for part, x in zip(parts, whole, strict=True))
        return function(*parts, mask, rows, columns)

    def write(found, args):
        return tuple(array.at[args[0]].set(one) for array, one in zip(found, of_piece(args), strict=True)), None

    args = jnp.arange(pieces), rows, *cut
    one = jax.eval_shape(of_piece, jax.tree.map(lambda x: x[0], args))
    # `jax.lax.map` begins with empty results that depend on nothing: those of all layers would be made first, and held.
    late = zero_dependent_on(whole[-1].reshape(-1)[0])
    found, _ = jax.lax.scan(write, tuple(jnp.full((pieces, *x.shape), late, x.dtype) for x in one), args)
    return tuple(x.reshape(N, *x.shape[2:]) for x in found)


@jax.custom_jvp
def _bits(x: jax.Array) -> jax.Array:
    """`x` as whole numbers of its size: XLA's CPU backend carries bfloat16 into a loop as float32."""
    return jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")


@_bits.defjvp
def _no_derivative(primals, tangents):
    raise NotImplementedError("attention in pieces has a gradient, but not a gradient of that")


def _heads(total: int, heads: int, weights: int) -> int:
    """How many of `total` heads (`heads` a row) make a piece: whole rows, or a part of one."""
    fits = [n for n in range(1, total + 1) if total % n == 0 and (n % heads == 0 or heads % n == 0) and n * weights <= PIECE]
    return max(fits, default=1)
