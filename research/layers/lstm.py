"""A bidirectional LSTM (Hochreiter & Schmidhuber 1997) over rows that hold several examples.

Letters in shapes: B rows of a batch, L tokens of a row, D input features, H `size`. The order of the directions is forward, backward.
The order of the gates is input i, forget f, candidate g, output o, as in PyTorch.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers.precision import Precision

GATES = 4


class BiLstm(nn.Module):
    """A bidirectional LSTM: [B, L, D] with `segments` [B, L] -> [B, L, 2 * H], each token's forward state, then backward state.

    i, f, o = sigmoid, g = tanh of W x + U h + b; c = f * c + i * g; h = o * tanh(c) (Graves & Schmidhuber 2005). Both directions
    start from zeros at each segment, so an example has the same states in a row with others as alone. States in padding are 0.

    The kernel W of `input` has LeCun initialisation. Its bias b starts at 0, and at 1 in the forget gate, so that cells first keep
    their content (Jozefowicz et al. 2015). `recurrent` (U) starts orthogonal for each direction and gate (Saxe et al. 2014).

    A token costs 16 * H * (D + H) FLOPs, and a row takes L sequential steps. W x is one product for all tokens, in `precision`. U h is
    float32, as its errors would add up along the row. One loop computes both directions, with the backward direction reversed.
    """

    size: int
    precision: Precision = Precision()

    @nn.compact
    def __call__(self, x: jax.Array, segments: jax.Array) -> jax.Array:
        (B, L, _), H = x.shape, self.size
        dense = nn.Dense(2 * GATES * H, dot_general=self.precision.dot_general, bias_init=_forget_bias, name="input")
        recurrent = self.param("recurrent", _orthogonal, (2, H, GATES * H))
        gates = dense(x).reshape(B, L, 2, GATES * H).transpose(1, 2, 0, 3)  # time first, for the scan
        same_segment = jnp.pad(segments[:, 1:] == segments[:, :-1], ((0, 0), (1, 1)))  # of tokens t - 1 and t, for t = 0..L
        continues = jnp.stack([same_segment[:, :-1].T, same_segment[:, 1:].T], axis=1)[..., None]

        def step(state, inputs):
            products, continues = inputs
            h, c = (jnp.where(continues, part, 0.0) for part in state)
            products = products + jnp.einsum("zbh,zhg->zbg", h, recurrent, precision=jax.lax.Precision.HIGHEST)
            i, f, g, o = jnp.split(products, GATES, axis=-1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zeros = jnp.zeros((2, B, H))
        _, states = jax.lax.scan(step, (zeros, zeros), (_backward_reversed(gates), _backward_reversed(continues)))
        states = _backward_reversed(states).transpose(2, 0, 1, 3).reshape(B, L, 2 * H)
        return jnp.where((segments > 0)[..., None], states, 0.0)


def _backward_reversed(x: jax.Array) -> jax.Array:
    """Return `x` [L, 2, ...] with the backward direction reversed in time. The function is its own inverse."""
    return jnp.stack([x[:, 0], x[::-1, 1]], axis=1)


def _orthogonal(key: jax.Array, shape: tuple[int, int, int]) -> jax.Array:
    """Draw a random orthogonal matrix [H, H] for each direction and gate."""
    directions, H, _ = shape
    blocks = jax.lax.map(functools.partial(_orthogonal_matrix, size=H), jax.random.split(key, directions * GATES))
    return blocks.reshape(directions, GATES, H, H).transpose(0, 2, 1, 3).reshape(shape)


def _orthogonal_matrix(key: jax.Array, size: int) -> jax.Array:
    """Draw an orthogonal matrix [`size`, `size`] from the uniform distribution, without LAPACK.

    The columns of a Gaussian matrix are orthonormalised one after the other, which gives the factor Q of the QR decomposition whose R
    has a positive diagonal (Mezzadri 2007). Projecting each column twice keeps Q orthogonal to float32's precision (Giraud et al. 2005).
    `jnp.linalg.qr` is avoided because a program with two batched decompositions can deadlock on a CPU with one device (jax 0.10.2).
    """

    def orthonormalise(basis: jax.Array, inputs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        number, column = inputs  # the rows of basis are the columns before this one, then zeros
        for _ in range(2):
            column = column - (basis @ column) @ basis
        return basis.at[number].set(column / jnp.sqrt(column @ column)), None

    columns = jax.random.normal(key, (size, size)).T
    with jax.default_matmul_precision("highest"):
        basis, _ = jax.lax.scan(orthonormalise, jnp.zeros_like(columns), (jnp.arange(size), columns))
    return basis.T


def _forget_bias(key: jax.Array, shape: tuple[int], dtype=jnp.float32) -> jax.Array:
    return jnp.zeros((2, GATES, shape[0] // (2 * GATES)), dtype).at[:, 1].set(1.0).reshape(shape)
