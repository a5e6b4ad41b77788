"""Compute precision of matrix products: exact float32, or bfloat16 operands with float32 accumulation and output.

Matrix units (AMX, tensor cores, the MXU) run only dots with bfloat16 operands that accumulate in float32. JAX's transpose of such a dot
has a float32 cotangent as an operand and misses the matrix unit. The custom gradient here casts the cotangent to bfloat16 too.
Parameters, norms, softmax and losses are float32 in either precision.

A CPU without a matrix unit takes 1.5 times as long for bfloat16 operands as for float32 operands. There, operands are rounded to
bfloat16 but multiplied as float32, in which the product of two bfloat16 numbers is exact.
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
    """Return whether the device has instructions for bfloat16 products. It is True for a CPU without a readable /proc/cpuinfo."""
    if jax.default_backend() != "cpu":
        return True
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return True
    return not {"amx_bf16", "avx512_bf16", "bf16"}.isdisjoint(flags)


def _dot(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    if not multiplies_bfloat16():
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def mixed_einsum(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Compute a two-operand einsum with bfloat16 operands, float32 accumulation and output. The backward pass does the same.

    Every index of an operand must occur in the other operand or in the output. For the backward pass, `a` is stored in bfloat16 and `b`
    in its original dtype: if `b` is a parameter, it is in memory anyway.
    """
    return _dot(spec, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))


def _forward(spec: str, a: jax.Array, b: jax.Array):
    rounded = a.astype(jnp.bfloat16)
    return _dot(spec, rounded, b.astype(jnp.bfloat16)), (rounded, b, jnp.zeros((0,), a.dtype))


def _backward(spec: str, residuals, g: jax.Array):
    a, original_b, like_a = residuals
    # The dependence on g stops XLA from keeping the forward pass's bfloat16 copy for this cast.
    b = (original_b + zero_dependent_on(g.reshape(-1)[0])).astype(jnp.bfloat16)
    operands, out = spec.split("->")
    name_a, name_b = operands.split(",")
    g = g.astype(jnp.bfloat16)
    grad_a, grad_b = _dot(f"{out},{name_b}->{name_a}", g, b), _dot(f"{name_a},{out}->{name_b}", a, g)
    return grad_a.astype(like_a.dtype), grad_b.astype(original_b.dtype)


mixed_einsum.defvjp(_forward, _backward)


@dataclasses.dataclass(frozen=True)
class Precision:
    """The precision of a model's matrix products. `name` is "float32" or "bfloat16". Raise InputError for another name."""

    name: str = "float32"

    def __post_init__(self):
        if self.name not in ("float32", "bfloat16"):
            raise InputError(f"precision {self.name!r}: {nearest(self.name, ('float32', 'bfloat16'))}")

    def einsum(self, spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
        """Return the einsum `spec` of two float arrays, as float32."""
        if self.name == "bfloat16":
            return mixed_einsum(spec, a, b)
        return jnp.einsum(spec, a, b, precision=jax.lax.Precision.HIGHEST, preferred_element_type=jnp.float32)

    def dot_general(self, lhs, rhs, dimension_numbers, precision=None, preferred_element_type=None) -> jax.Array:
        """Replace `jax.lax.dot_general` in Flax modules that take it as an argument, as in `nn.Dense(dot_general=...)`."""
        del precision, preferred_element_type
        return self.einsum(_spec(lhs.ndim, rhs.ndim, dimension_numbers), lhs, rhs)

    def rounded(self, x: jax.Array) -> jax.Array:
        """Return `x` rounded to the precision of a product's operand. Stored for the backward pass, bfloat16 takes half the memory."""
        return x if self.name == "float32" else jax.lax.optimization_barrier(x.astype(jnp.bfloat16))

    @property
    def fuses_attention(self) -> bool:
        """Return whether the precision is bfloat16 and cuDNN has an attention kernel for the GPU: compute capability 8 or higher."""
        device = jax.devices()[0]
        return self.name == "bfloat16" and device.platform == "gpu" and float(getattr(device, "compute_capability", 0)) >= 8

    def attention(self, q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array, implementation: str | None = "cudnn") -> jax.Array:
        """Return softmax(q k^T / sqrt(d)) v where `mask` [B, 1, L, M] is true, from a fused kernel that stores no attention weights.

        `q` is [B, L, H, d], `k` and `v` are [B, M, H, d], all float32. The result is float32 [B, L, H, d].
        """
        rounded = (x.astype(jnp.bfloat16) for x in (q, k, v))
        return jax.nn.dot_product_attention(*rounded, mask=mask, implementation=implementation).astype(jnp.float32)


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
