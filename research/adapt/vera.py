"""VeRA: trained vectors that scale frozen random matrices (Kopiczko et al. 2024)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import freeze_kernels, kernels, keys_of, paths_of
from research.errors import InputError
from research.params.plan import FROZEN, Rules

SHARED = "shared"  # stands for a module path in the names of the matrices that all modules of one size share


@dataclasses.dataclass(frozen=True)
class Vera(Delta):
    """h = W x + b * (B (d * (A x))), with trained vectors d [r] and b [n] (Kopiczko et al. 2024, equation 2).

    A [r, m] and B [n, r] are random, frozen and shared by all modules of one size. They are stored transposed: `shared/MxN/a` [m, r] and
    `shared/MxN/b` [r, n]. Both are Kaiming-uniform as in the paper: within +-sqrt(6 / m) and +-sqrt(6 / r). d begins at `d_initial` and b
    at zero. The rank may exceed m and n, since neither matrix trains: the paper takes 1024 for RoBERTa-base, of 768 features.
    """

    rank: int
    d_initial: float
    targets: str
    name = "vera"
    no_decay_pattern = "d"

    def init(self, key, encoder):
        if self.rank < 1:
            raise InputError(f"vera.rank={self.rank}: the rank of the shared matrices must be at least 1; use 1 or more, for example 256")
        params = {}
        for path, (m, n) in kernels(encoder, self.targets, "vera.targets").items():
            shared = shared_path(m, n)
            if f"{shared}/a" not in params:
                a, b = jax.random.split(keys_of(key, [shared])[shared])
                params[f"{shared}/a"] = (6 / m) ** 0.5 * jax.random.uniform(a, (m, self.rank), minval=-1.0)
                params[f"{shared}/b"] = (6 / self.rank) ** 0.5 * jax.random.uniform(b, (self.rank, n), minval=-1.0)
            params[f"{path}/d"], params[f"{path}/b"] = jnp.full((self.rank,), self.d_initial), jnp.zeros((n,))
        return params

    def freeze_rules(self, encoder) -> Rules:
        return {"shared by vera": (f"delta/vera/{SHARED}", FROZEN)} | freeze_kernels(encoder, self.targets, "vera", "vera.targets")

    def interceptors(self, delta_params, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            a, b = shared_pair(delta_params, encoder, path)
            d, scale = delta_params[f"{path}/d"][None, None], delta_params[f"{path}/b"][None, None]

            def interceptor(dense, x):
                low = precision.einsum("blm,mr->blr", x, a)
                return dense(x) + scale * precision.einsum("blr,rn->bln", d * low, b)

            return interceptor

        return {path: at(path) for path in vera_paths(delta_params)}

    def matrices(self, delta_params, encoder):
        return {path: (sum(math.prod(x.shape) for x in shared_pair(delta_params, encoder, path)), 0) for path in vera_paths(delta_params)}

    def merged(self, delta_params, encoder):
        params = dict(encoder)
        for path in vera_paths(delta_params):
            a, b = shared_pair(delta_params, encoder, path)
            a, b = a * delta_params[f"{path}/d"][None], b * delta_params[f"{path}/b"][None]
            params[f"{path}/kernel"] = encoder[f"{path}/kernel"] + jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
        return params


def shared_path(m: int, n: int) -> str:
    """Return the path of the two shared matrices for modules of m inputs and n outputs."""
    return f"{SHARED}/{m}x{n}"


def shared_pair(delta_params: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array], path: str) -> tuple[jax.Array, jax.Array]:
    """Return the two shared matrices, [m, r] and [r, n], for the module at `path`."""
    shared = shared_path(*encoder[f"{path}/kernel"].shape)
    return delta_params[f"{shared}/a"], delta_params[f"{shared}/b"]


def vera_paths(delta_params: Mapping[str, Any]) -> list[str]:
    """Return the paths of the modules that have vectors d and b."""
    return [path for path in paths_of(delta_params) if not path.startswith(f"{SHARED}/")]


def vera(stages: tuple[str, ...], config: Any) -> Method:
    """Train two vectors for each target, which scale random, frozen and shared matrices (Kopiczko et al. 2024). Defaults: rank 256 and
    an initial d of 0.1 (peft's; the paper's Table 6c asks for 0.1 or less) on query and value. A step costs as much as LoRA at that
    rank, which adds a tenth of a BERT-base's work; after merging, inference costs nothing more."""
    return Method(deltas=(Vera(**config.vera),))
