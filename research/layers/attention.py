"""Softmax attention between the tokens of a segment, with a custom gradient that stores only queries, keys and values.

The attention weights [rows, heads, L, M] are the largest array of a Transformer. On a CPU they are computed in chunks that fit in the
cache, and the backward pass recomputes them (as in Dao et al. 2022, but in chunks of rows and heads). The memory traffic saved costs
many times as much as the extra products. Other devices compute all weights at once.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers.dropout import Rate, keep_mask, module_rows
from research.layers.precision import Precision
from research.layers.remat import zero_dependent_on

MASKED = -1e9  # finite, so that a row without any token gives finite numbers; its exp() is exactly 0
CHUNK = 1 << 18  # most weights of a chunk: 1 MiB in float32, which leaves room in a core's second-level cache


class Core(nn.Module):
    """Attention of queries [B * H, L, d] to keys and values [B * H, M, d] where `mask` [B, 1, L, M] is true: [B * H, L, d].

    `rows` [B, H, L, 1] and `columns` [B, 1, 1, M] identify the attention weights for dropout. `bias` [B * H, L, M] is added to
    q k^T / sqrt(d). The module has no parameters.
    """

    precision: Precision
    dropout: float | Rate

    def __call__(self, q, k, v, mask: jax.Array, rows: jax.Array | None, columns: jax.Array | None, bias: jax.Array | None = None):
        drops = rows is not None and (isinstance(self.dropout, Rate) or self.dropout > 0)
        rate, rows = (Rate.of(self.dropout), module_rows(self, rows)) if drops else (None, None)
        if bias is not None:
            return biased_attention(q, k, v, mask, rows, columns, bias, rate, self.precision)
        if self.precision.fuses_attention and not drops:  # the device's kernel cannot apply hash-based dropout
            return _device_kernel(self.precision, q, k, v, mask)
        return attention(q, k, v, mask, rows, columns if drops else None, rate, self.precision)


def biased_attention(q, k, v, mask, rows, columns, bias: jax.Array, rate: Rate | None, precision: Precision) -> jax.Array:
    """Return dropout(softmax(q k^T / sqrt(d) + bias)) v, with shapes as in `Core`.

    The weights are not computed in chunks, because the bias is as large as all weights.
    """
    _, dropped = _weights(q * q.shape[-1] ** -0.5, k, mask, rows, columns, rate, precision, bias)
    return precision.einsum("nqk,nkd->nqd", dropped, v)


def _device_kernel(precision: Precision, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array) -> jax.Array:
    (N, L, d), B = q.shape, mask.shape[0]
    y = precision.attention(*(x.reshape(B, N // B, -1, d).swapaxes(1, 2) for x in (q, k, v)), mask)
    return y.swapaxes(1, 2).reshape(N, L, d)


@functools.partial(jax.custom_vjp, nondiff_argnums=(7,))
def attention(q, k, v, mask, rows, columns, rate: Rate | None, precision: Precision) -> jax.Array:
    """Return dropout(softmax(q k^T / sqrt(d))) v, with shapes as in `Core`. Inputs and output are float32.

    `rows`, `columns` and `rate` are None without dropout.
    """
    return _forward(q, k, v, mask, rows, columns, rate, precision)[0]


def _forward(q, k, v, mask, rows, columns, rate, precision):
    rounded = tuple(precision.rounded(x) for x in (q * q.shape[-1] ** -0.5, k, v))

    def chunk(q, k, v, mask, rows, columns):
        _, dropped = _weights(q, k, mask, rows, columns, rate, precision)
        return (precision.einsum("nqk,nkd->nqd", dropped, v),)

    (y,) = _in_chunks(chunk, rounded, (mask, rows, columns))
    return y, (*rounded, mask, rows, columns, rate)


def _backward(precision, residuals, g):
    q, k, v, *mask_rows_columns, rate = residuals

    def chunk(q, k, v, g, mask, rows, columns):
        weights, dropped = _weights(q, k, mask, rows, columns, rate, precision)
        grad = precision.einsum("nqd,nkd->nqk", g, v)
        if rate is not None:
            grad = jnp.where(keep_mask(rows, columns, rate).reshape(grad.shape), grad * rate.scale, 0.0)
        grad = weights * (grad - (grad * weights).sum(-1, keepdims=True))
        return (
            precision.einsum("nqk,nkd->nqd", grad, k),
            precision.einsum("nqk,nqd->nkd", grad, q),
            precision.einsum("nqk,nqd->nkd", dropped, g),
        )

    grad_q, grad_k, grad_v = _in_chunks(chunk, (q, k, v, g.astype(precision.name)), mask_rows_columns)
    return grad_q * q.shape[-1] ** -0.5, grad_k, grad_v, None, None, None, None


attention.defvjp(_forward, _backward)


def _weights(q, k, mask, rows, columns, rate, precision, bias=None):
    """Return the attention weights [n, L, M] of a chunk before and after dropout. `mask` is [r, 1, L, M] for r rows of n / r heads."""
    scores = precision.einsum("nqd,nkd->nqk", q, k)
    scores = scores if bias is None else scores + bias
    weights = jax.nn.softmax(jnp.where(mask, scores.reshape(mask.shape[0], -1, *mask.shape[2:]), MASKED))
    dropped = weights if rate is None else jnp.where(keep_mask(rows, columns, rate), weights * rate.scale, 0.0)
    return weights.reshape(scores.shape), dropped.reshape(scores.shape)


def _in_chunks(function: Callable, inputs: tuple, mask_rows_columns: tuple) -> tuple:
    """Return `function(*inputs, mask, rows, columns)`, computed on a CPU in chunks of at most `CHUNK` attention weights if possible.

    A chunk has at least one head of one row. The `inputs` are [B * H, ...]. Mask, rows and columns are [B, ...]; the last two may be
    None.
    """
    mask, rows, columns = mask_rows_columns
    N, B = inputs[0].shape[0], mask.shape[0]
    size = _heads(N, N // B, mask.shape[2] * mask.shape[3]) if jax.default_backend() == "cpu" else N
    if size == N:
        return function(*inputs, mask, rows, columns)
    r, chunks = max(size * B // N, 1), N // size
    mask_and_columns = [None if x is None else x.reshape(B // r, r, *x.shape[1:]) for x in (mask, columns)]
    chunked = [_bits(x).reshape(chunks, size, *x.shape[1:]) for x in inputs]
    rows = None if rows is None else rows.reshape(chunks, r, size // r, *rows.shape[2:])

    def of_chunk(args):
        number, rows, *parts = args
        mask, columns = (None if x is None else x[number * size * B // N // r] for x in mask_and_columns)
        parts = (jax.lax.bitcast_convert_type(part, x.dtype) for part, x in zip(parts, inputs, strict=True))
        return function(*parts, mask, rows, columns)

    def write(results, args):
        return tuple(array.at[args[0]].set(result) for array, result in zip(results, of_chunk(args), strict=True)), None

    args = jnp.arange(chunks), rows, *chunked
    shapes = jax.eval_shape(of_chunk, jax.tree.map(lambda x: x[0], args))
    # `jax.lax.map` starts from empty arrays without dependencies. XLA would allocate those of all layers first and keep them in memory.
    zero = zero_dependent_on(inputs[-1].reshape(-1)[0])
    results, _ = jax.lax.scan(write, tuple(jnp.full((chunks, *x.shape), zero, x.dtype) for x in shapes), args)
    return tuple(x.reshape(N, *x.shape[2:]) for x in results)


@jax.custom_jvp
def _bits(x: jax.Array) -> jax.Array:
    """Return the bits of `x` as unsigned integers of the same size, because XLA's CPU backend passes bfloat16 into a loop as float32."""
    return jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")


@_bits.defjvp
def _no_derivative(primals, tangents):
    raise NotImplementedError("attention in chunks has a gradient, but no second derivative")


def _heads(total: int, heads: int, weights: int) -> int:
    """Return how many of `total` heads (`heads` in each row) form a chunk: all heads of some rows, or a part of one row's heads.

    `weights` is the number of attention weights of one head.
    """
    fits = [n for n in range(1, total + 1) if total % n == 0 and (n % heads == 0 or heads % n == 0) and n * weights <= CHUNK]
    return max(fits, default=1)
