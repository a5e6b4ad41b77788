"""Deltas on dense layers: low-rank matrices added to a frozen kernel."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import dropped, kernels, keys_of, paths_of, under
from research.errors import InputError
from research.params.plan import Rules


@dataclasses.dataclass(frozen=True)
class Lora(Delta):
    """h = W x + scale * B A x, with W [n, m] frozen, A [r, m] random and B [n, r] zero (Hu et al. 2022, equation 3).

    Kept transposed, as Flax keeps kernels: `a` [m, r], `b` [r, n]. `scale` is alpha / r, or alpha / sqrt(r) for rsLoRA
    (Kalajdzievski 2023). A is drawn as PyTorch draws a linear layer's weights, uniform in +-1 / sqrt(m).
    """

    rank: int
    alpha: float
    targets: str
    dropout: float = 0.0
    rank_stabilised: bool = False
    name = "lora"

    @property
    def scale(self) -> float:
        """What the product of the two small matrices is multiplied by."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    def init(self, key, encoder):
        if not 0 <= self.dropout < 1:
            raise InputError(f"{self.name}.dropout={self.dropout}: it is the part that is dropped; use 0 or more, and less than 1")
        found = {}
        for path, (m, n) in kernels(encoder, self.targets, f"{self.name}.targets").items():
            if not 1 <= self.rank <= min(m, n):
                raise InputError(f"{self.name}.rank={self.rank}: {path} is {m} x {n}; use 1 to {min(m, n)}")
            if self.dropout and path == "pooler":
                raise InputError(
                    f"{self.name}.dropout={self.dropout}: it is of tokens, but the pooler reads examples; use 0 or other targets"
                )
            own = keys_of(key, [path])[path]
            found[f"{path}/a"] = jax.random.uniform(own, (m, self.rank), minval=-(m**-0.5), maxval=m**-0.5)
            found[f"{path}/b"] = jnp.zeros((self.rank, n))
        return found

    def freeze_rules(self, encoder) -> Rules:
        return under(encoder, self.targets, self.name, f"{self.name}.targets")

    def low_rank(self, own, batch, key, precision, path: str, x: jax.Array) -> jax.Array:
        """scale * B A x for the module at `path`: [B, L, m] -> [B, L, n]."""
        low = precision.einsum("blm,mr->blr", dropped(x, self.dropout, batch, key, path), own[f"{path}/a"])
        return self.scale * precision.einsum("blr,rn->bln", low, own[f"{path}/b"])

    def interceptors(self, own, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            return lambda dense, x: dense(x) + self.low_rank(own, batch, key, precision, path, x)

        return {path: at(path) for path in paths_of(own)}

    def summed(self, own: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array], path: str) -> jax.Array:
        """W + scale * B A for the module at `path`: [m, n], in full float32 on every machine."""
        product = jnp.matmul(own[f"{path}/a"], own[f"{path}/b"], precision=jax.lax.Precision.HIGHEST)
        return encoder[f"{path}/kernel"] + self.scale * product

    def merged(self, own, encoder):
        return {**encoder, **{f"{path}/kernel": self.summed(own, encoder, path) for path in paths_of(own)}}


@dataclasses.dataclass(frozen=True)
class Dora(Lora):
    """h = m * (W + scale * B A) x / |W + scale * B A|, elementwise in the n outputs (Liu et al. 2024, equation 5).

    `magnitude` [n] begins as the norm of W over its inputs, so training begins at the frozen model. The norm below the line is a
    constant to the gradient (section 4.3), which the authors find saves memory and costs no accuracy. Dropout, where there is any,
    is of what enters A; W reads all of x.
    """

    name = "dora"
    no_decay_pattern = "magnitude"

    def init(self, key, encoder):
        found = super().init(key, encoder)
        return found | {f"{path}/magnitude": norms(encoder[f"{path}/kernel"]) for path in paths_of(found)}

    def interceptors(self, own, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            bias = encoder.get(f"{path}/bias", jnp.zeros_like(own[f"{path}/magnitude"]))[None, None]

            def interceptor(dense, x):
                norm = norms(jax.lax.stop_gradient(self.summed(own, encoder, path)))
                factor = (own[f"{path}/magnitude"] / norm)[None, None]
                y = dense(x)
                # The bias is not scaled. Written as a change of y, which is exactly zero where the factor is one.
                return y + (factor - 1.0) * (y - bias) + factor * self.low_rank(own, batch, key, precision, path, x)

            return interceptor

        return {path: at(path) for path in paths_of(own)}

    def merged(self, own, encoder):
        found = dict(encoder)
        for path in paths_of(own):
            kernel = self.summed(own, encoder, path)
            found[f"{path}/kernel"] = kernel * (own[f"{path}/magnitude"] / norms(kernel))[None]
        return found


def norms(kernel: jax.Array) -> jax.Array:
    """The Euclidean norm of what each output of a kernel [m, n] is made with: [n]."""
    return jnp.sqrt(jnp.sum(jnp.square(kernel), axis=0))


def lora(stages: tuple[str, ...], config: Any) -> Method:
    """Low-rank matrices are added to frozen kernels (Hu et al. 2022). Defaults: rank 8 on query and value, alpha 16 (the paper's
    tables for RoBERTa). Costs 2 passes' work of 3: no gradient of a kernel. Can be merged: then it costs nothing to use."""
    return Method(deltas=(Lora(**config.lora),))


def dora(stages: tuple[str, ...], config: Any) -> Method:
    """LoRA with the length of each output's weights trained apart from their direction (Liu et al. 2024). Options and defaults are
    LoRA's, kept apart so that both can be joined. Costs what LoRA does and, for each target and step, the product B A and its norm;
    nothing once merged."""
    return Method(deltas=(Dora(**config.dora),))
