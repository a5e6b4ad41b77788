"""LoRA and DoRA: trained low-rank matrices added to frozen kernels of dense layers."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import dropped, freeze_kernels, kernels, keys_of, paths_of
from research.errors import InputError
from research.params.plan import Rules


@dataclasses.dataclass(frozen=True)
class Lora(Delta):
    """h = W x + scale * B A x, with W [n, m] frozen, A [r, m] random and B [n, r] zero (Hu et al. 2022, equation 3).

    The matrices are stored transposed, like Flax kernels: `a` [m, r], `b` [r, n]. `scale` is alpha / r, or alpha / sqrt(r) for rsLoRA
    (Kalajdzievski 2023). A is drawn as PyTorch draws the weights of a linear layer, uniform in +-1 / sqrt(m).
    """

    rank: int
    alpha: float
    targets: str
    dropout: float = 0.0
    rank_stabilised: bool = False
    name = "lora"

    @property
    def scale(self) -> float:
        """Return the factor of the product B A."""
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    def init(self, key, encoder):
        if not 0 <= self.dropout < 1:
            raise InputError(f"{self.name}.dropout={self.dropout}: the dropout rate must be at least 0 and less than 1")
        params = {}
        for path, (m, n) in kernels(encoder, self.targets, f"{self.name}.targets").items():
            if not 1 <= self.rank <= min(m, n):
                raise InputError(f"{self.name}.rank={self.rank}: {path} is {m} x {n}; use 1 to {min(m, n)}")
            if self.dropout and path == "pooler":
                raise InputError(
                    f"{self.name}.dropout={self.dropout}: dropout is for tokens, but the pooler reads examples; use 0 or other targets"
                )
            path_key = keys_of(key, [path])[path]
            params[f"{path}/a"] = jax.random.uniform(path_key, (m, self.rank), minval=-(m**-0.5), maxval=m**-0.5)
            params[f"{path}/b"] = jnp.zeros((self.rank, n))
        return params

    def freeze_rules(self, encoder) -> Rules:
        return freeze_kernels(encoder, self.targets, self.name, f"{self.name}.targets")

    def low_rank(self, delta_params, batch, key, precision, path: str, x: jax.Array) -> jax.Array:
        """Return scale * B A x for the module at `path`: [B, L, m] -> [B, L, n]."""
        low = precision.einsum("blm,mr->blr", dropped(x, self.dropout, batch, key, path), delta_params[f"{path}/a"])
        return self.scale * precision.einsum("blr,rn->bln", low, delta_params[f"{path}/b"])

    def interceptors(self, delta_params, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            return lambda dense, x: dense(x) + self.low_rank(delta_params, batch, key, precision, path, x)

        return {path: at(path) for path in paths_of(delta_params)}

    def summed(self, delta_params: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array], path: str) -> jax.Array:
        """Return the kernel W + scale * B A for the module at `path`: [m, n], computed in full float32 on every device."""
        product = jnp.matmul(delta_params[f"{path}/a"], delta_params[f"{path}/b"], precision=jax.lax.Precision.HIGHEST)
        return encoder[f"{path}/kernel"] + self.scale * product

    def merged(self, delta_params, encoder):
        return {**encoder, **{f"{path}/kernel": self.summed(delta_params, encoder, path) for path in paths_of(delta_params)}}


@dataclasses.dataclass(frozen=True)
class Dora(Lora):
    """h = m * (W + scale * B A) x / |W + scale * B A|, elementwise in the n outputs (Liu et al. 2024, equation 5).

    `magnitude` [n] begins as the norm of W over the inputs, so training begins at the pretrained model. The norm in the denominator is a
    constant to the gradient (section 4.3): the authors find that this saves memory and costs no accuracy. Dropout applies to the input of
    A only; W reads all of x.
    """

    name = "dora"
    no_decay_pattern = "magnitude"

    def init(self, key, encoder):
        params = super().init(key, encoder)
        return params | {f"{path}/magnitude": norms(encoder[f"{path}/kernel"]) for path in paths_of(params)}

    def interceptors(self, delta_params, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            bias = encoder.get(f"{path}/bias", jnp.zeros_like(delta_params[f"{path}/magnitude"]))[None, None]

            def interceptor(dense, x):
                norm = norms(jax.lax.stop_gradient(self.summed(delta_params, encoder, path)))
                factor = (delta_params[f"{path}/magnitude"] / norm)[None, None]
                y = dense(x)
                # The bias is not scaled. The formula is a change of y, so that the output is exactly y where factor is 1 and B is 0.
                return y + (factor - 1.0) * (y - bias) + factor * self.low_rank(delta_params, batch, key, precision, path, x)

            return interceptor

        return {path: at(path) for path in paths_of(delta_params)}

    def merged(self, delta_params, encoder):
        params = dict(encoder)
        for path in paths_of(delta_params):
            kernel = self.summed(delta_params, encoder, path)
            params[f"{path}/kernel"] = kernel * (delta_params[f"{path}/magnitude"] / norms(kernel))[None]
        return params


def norms(kernel: jax.Array) -> jax.Array:
    """Return the Euclidean norm of the weights of each output of a kernel [m, n]: [n]."""
    return jnp.sqrt(jnp.sum(jnp.square(kernel), axis=0))


def lora(stages: tuple[str, ...], config: Any) -> Method:
    """Train low-rank matrices added to frozen kernels (Hu et al. 2022). Defaults: rank 8 on query and value, alpha 16 (the paper's
    tables for RoBERTa). A step costs 2/3 of full fine-tuning: kernels have no gradient. After merging, inference costs nothing more."""
    return Method(deltas=(Lora(**config.lora),))


def dora(stages: tuple[str, ...], config: Any) -> Method:
    """Train LoRA's matrices and, separately, the norm of each output's weights (Liu et al. 2024). Options and defaults are those of LoRA,
    in `config.dora`, so that both methods can be joined. A step costs as much as with LoRA and, for each target, the product B A and its
    norm; after merging, inference costs nothing more."""
    return Method(deltas=(Dora(**config.dora),))
