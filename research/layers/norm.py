"""Layer normalisation with a custom gradient that stores its input once, with two scalars for each vector.

The intermediate arrays that automatic differentiation stores for such functions are most of the memory of a training step, and reading
them back is most of the functions' time.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.layers.remat import barrier, zero_dependent_on


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Normalise the last axis to mean 0 and variance 1, multiply by `scale` and add `bias` (Ba et al. 2016)."""
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float):
    mean = x.mean(-1, keepdims=True)
    variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0.0)
    inverse = jax.lax.rsqrt(variance + epsilon)
    last = (1,) * (x.ndim - 1) + (-1,)
    return (x - mean) * (inverse * scale.reshape(last)) + bias.reshape(last), (x, mean, inverse, scale)


def _layer_norm_backward(epsilon: float, residuals, g: jax.Array):
    (x, mean, inverse, scale), g = barrier(residuals, g)
    others, D = tuple(range(x.ndim - 1)), x.shape[-1]
    h = g * scale.reshape((1,) * (x.ndim - 1) + (-1,))
    # With n = (x - mean) * inverse, the gradient is inverse * (h - mean(h) - n * mean(h * n)). It is written with sums over x, never n, and
    # with a mean and inverse that depend on g. Otherwise the compiler computes n early and keeps it in memory.
    sum_h, sum_hx = h.sum(-1, keepdims=True), (h * x).sum(-1, keepdims=True)
    mean, inverse = (statistic + zero_dependent_on(sum_h) for statistic in (mean, inverse))
    slope = inverse * inverse * (sum_hx - mean * sum_h) / D
    grad_x = inverse * (h - slope * x - (sum_h / D - slope * mean))
    scaled = g * inverse
    return grad_x, (scaled * x - scaled * mean).sum(others), g.sum(others)


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(nn.Module):
    """`layer_norm` with the parameters `scale` and, if `use_bias`, `bias` [D], named as in `flax.linen.LayerNorm`."""

    epsilon: float
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape) if self.use_bias else jnp.zeros(shape)
        return layer_norm(x, scale, bias, self.epsilon)
