"""The one place that knows compute dtypes: contractions that are exact float32, or take bfloat16 in and give float32 out.

Matrix units (AMX, tensor cores, the MXU) are reached only by a dot with bfloat16 operands that accumulates in float32.
JAX's own transpose of such a dot feeds the float32 cotangent back and falls off that path, so the gradient is written
out here with the cotangent cast too. Parameters, norms, softmax and losses stay float32 in either precision.

A CPU without such a unit takes half as long again for bfloat16 operands as for float32 ones, so there they are rounded all the same and
multiplied as float32: the products of two bfloat16 numbers are exact in it.
"""

import dataclasses
import functools
from pathlib import Path

import jax
import jax.numpy as jnp

from research.errors import InputError, nearest
from research.layers.remat import zero_dependent_on


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the device has instructions for it. Of a CPU that does not say so in /proc/cpuinfo, it is assumed."""
    if jax.default_backend() != "cpu":
        return True
    try:
        words = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(words)


def _dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    if not multiplies_bfloat16():
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mixed_einsum(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Two-operand einsum in bfloat16 with float32 accumulation and output, and a backward pass of the same kind.

    Every index of an operand must stand in the other operand or in the output (a contraction, no lone sums). Between the passes `a`
    is kept in bfloat16 and `b` as it was given: a parameter is there anyway.
    """
    return _dot(spec, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))


def _forward(spec: str, a: jax.Array, b: jax.Array):
    low = a.astype(jnp.bfloat16)
    return _dot(spec, low, b.astype(jnp.bfloat16)), (low, b, jnp.zeros((0,), a.dtype))


def _backward(spec: str, residuals, g: jax.Array):
    a, given, like_a = residuals
    b = (given + zero_dependent_on(g.reshape(-1)[0])).astype(jnp.bfloat16)  # not the forward pass's copy, which would be kept for it
    operands, out = spec.split("->")
    name_a, name_b = operands.split(",")
    g = g.astype(jnp.bfloat16)
    grad_a, grad_b = _dot(f"{out},{name_b}->{name_a}", g, b), _dot(f"{name_a},{out}->{name_b}", a, g)
    return grad_a.astype(like_a.dtype), grad_b.astype(given.dtype)


mixed_einsum.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class Precision:
    """What models are given instead of a dtype. `name` is "float32" or "bfloat16"."""

    name: str = "float32"

    def __post_init__(self):
        if self.name not in ("float32", "bfloat16"):
            raise InputError(f"precision {self.name!r}: {nearest(self.name, ('float32', 'bfloat16'))}")

    def einsum(self, spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
        """`spec` over two float arrays, float32 out."""
        if self.name == "bfloat16":
            return mixed_einsum(spec, a, b)
        return jnp.einsum(spec, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)

    def dot_general(self, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None) -> jax.Array:
        """Stands in for `jax.lax.dot_general` in Flax modules that take one (`nn.Dense(dot_general=...)`)."""
        del precision, preferred_element_type
        return self.einsum(_spec(lhs.ndim, rhs.ndim, dimension_numbers), lhs, rhs)

    def rounded(self, x: jax.Array) -> jax.Array:
        """`x` as an operand of a product would be, for what is kept between the passes: half the memory in bfloat16."""
        return x if self.name == "float32" else jax.lax.optimization_barrier(x.astype(jnp.bfloat16))

    @property
    def fuses_attention(self) -> bool:
        """Whether the device has a kernel for attention in bfloat16: cuDNN's, on NVIDIA GPUs of compute capability 8 and up."""
        device = jax.devices()[0]
        return self.name == "bfloat16" and device.platform == "gpu" and float(getattr(device, "compute_capability", 0)) >= 8

    def attention(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, implementation: str | None = "cudnn") -> jax.Array:
        """softmax(q k^T / sqrt(d)) v where `mask` [B, 1, L, M] is true, by the device's kernel: it keeps no weights.

        `q` [B, L, H, d], `k` and `v` [B, M, H, d], all float32; the result is [B, L, H, d] float32.
        """
        low = (x.astype(jnp.bfloat16) for x in (q, k, v))
        return jax.nn.dot_product_attention(*low, mask=mask, implementation=implementation).astype(jnp.float32)


def _spec(lhs_ndim: int, rhs_ndim: int, dimension_numbers) -> str:
    (lhs_contract, rhs_contract), (lhs_batch, rhs_batch) = dimension_numbers
    lhs = [chr(ord("a") + i) for i in range(lhs_ndim)]
    rhs = [chr(ord("a") + lhs_ndim + i) for i in range(rhs_ndim)]
    for i, j in (*zip(lhs_contract, rhs_contract, strict=True), *zip(lhs_batch, rhs_batch, strict=True)):
        rhs[j] = lhs[i]
    batch = [lhs[i] for i in lhs_batch]
    shared = {*batch, *(lhs[i] for i in lhs_contract)}
    out = batch + [x for x in lhs if x not in shared] + [x for x in rhs if x not in shared]
    return f"{''.join(lhs)},{''.join(rhs)}->{''.join(out)}"
