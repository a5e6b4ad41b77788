"""VeRA: vectors around frozen random matrices (Kopiczko et al. 2024)."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import kernels, keys_of, paths_of, under
from research.errors import InputError
from research.params.plan import FROZEN, Rules

SHARED = "shared"  # in the place of a module's path: what all modules of one size have in common


@dataclasses.dataclass(frozen=True)
class Vera(Delta):
    """h = W x + b * (B (d * (A x))), with A [r, m] and B [n, r] random, frozen and the same for every module of that size; the
    vectors d [r] and b [n] train (Kopiczko et al. 2024, equation 2).

    Kept transposed: `shared/MxN/a` [m, r], `shared/MxN/b` [r, n]. Both are drawn as the paper does, Kaiming-uniform: within
    +-sqrt(6 / m) and +-sqrt(6 / r). d begins at `d_initial` and b at zero. The rank may be over the matrix's own size, since
    nothing of the two matrices trains: the paper takes 1024 for RoBERTa-base, of 768 features.
    """

    rank: int
    d_initial: float
    targets: str
    name = "vera"
    no_decay_pattern = "d"

    def init(self, key, encoder):
        if self.rank < 1:
            raise InputError(f"vera.rank={self.rank}: the two shared matrices need a size between them; use 1 or more, for example 256")
        found = {}
        for path, (m, n) in kernels(encoder, self.targets, "vera.targets").items():
            shared = shared_path(m, n)
            if f"{shared}/a" not in found:
                a, b = jax.random.split(keys_of(key, [shared])[shared])
                found[f"{shared}/a"] = (6 / m) ** 0.5 * jax.random.uniform(a, (m, self.rank), minval=-1.0)
                found[f"{shared}/b"] = (6 / self.rank) ** 0.5 * jax.random.uniform(b, (self.rank, n), minval=-1.0)
            found[f"{path}/d"], found[f"{path}/b"] = jnp.full((self.rank,), self.d_initial), jnp.zeros((n,))
        return found

    def freeze_rules(self, encoder) -> Rules:
        return {"shared by vera": (f"delta/vera/{SHARED}", FROZEN)} | under(encoder, self.targets, "vera", "vera.targets")

    def interceptors(self, own, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            a, b = shared_pair(own, encoder, path)
            d, scale = own[f"{path}/d"][None, None], own[f"{path}/b"][None, None]

            def interceptor(dense, x):
                low = precision.einsum("blm,mr->blr", x, a)
                return dense(x) + scale * precision.einsum("blr,rn->bln", d * low, b)

            return interceptor

        return {path: at(path) for path in vera_paths(own)}

    def matrices(self, own, encoder):
        return {path: (sum(math.prod(x.shape) for x in shared_pair(own, encoder, path)), 0) for path in vera_paths(own)}

    def merged(self, own, encoder):
        found = dict(encoder)
        for path in vera_paths(own):
            a, b = shared_pair(own, encoder, path)
            product = jnp.matmul(a * own[f"{path}/d"][None], b * own[f"{path}/b"][None], precision=jax.lax.Precision.HIGHEST)
            found[f"{path}/kernel"] = encoder[f"{path}/kernel"] + product
        return found


def shared_path(m: int, n: int) -> str:
    """Where the two matrices for modules of m inputs and n outputs stand."""
    return f"{SHARED}/{m}x{n}"


def shared_pair(own: Mapping[str, jax.Array], encoder: Mapping[str, jax.Array], path: str) -> tuple[jax.Array, jax.Array]:
    """The two matrices, [m, r] and [r, n], for the module at `path`."""
    shared = shared_path(*encoder[f"{path}/kernel"].shape)
    return own[f"{shared}/a"], own[f"{shared}/b"]


def vera_paths(own: Mapping[str, Any]) -> list[str]:
    """Paths of the modules that have vectors."""
    return [path for path in paths_of(own) if not path.startswith(f"{SHARED}/")]


def vera(stages: tuple[str, ...], config: Any) -> Method:
    """Two vectors for each target train, around matrices that are random, frozen and shared (Kopiczko et al. 2024). Defaults: rank
    256 and d at 0.1 (peft's; the paper's Table 6c asks for 0.1 or less) on query and value. Costs LoRA's work at
    that rank, a tenth of a BERT-base's own; nothing once merged."""
    return Method(deltas=(Vera(**config.vera),))
