"""Deltas that train vectors and no matrix: they scale features of what dense layers take, give, or have added to them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.lora import kernels, keys_of, paths_of, under
from research.adapt.method import Delta, Method, Site
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
    spared = "d"

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

    def claims(self, encoder) -> Rules:
        return {"shared by vera": (f"delta/vera/{SHARED}", FROZEN)} | under(encoder, self.targets, "vera", "vera.targets")

    def sites(self, own, encoder, batch, key, precision):
        def at(path: str) -> Site:
            a, b = shared_pair(own, encoder, path)
            d, scale = own[f"{path}/d"][None, None], own[f"{path}/b"][None, None]

            def site(dense, x):
                low = precision.einsum("blm,mr->blr", x, a)
                return dense(x) + scale * precision.einsum("blr,rn->bln", d * low, b)

            return site

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


@dataclasses.dataclass(frozen=True)
class Ia3(Delta):
    """l_out * (W (l_in * x) + bias), with l_out [n] at the modules `outputs` and l_in [m] at the modules `inputs`, all beginning at
    one (Liu et al. 2022, section 3.3)."""

    outputs: str
    inputs: str
    name = "ia3"
    spared = "inputs|outputs"

    def init(self, key, encoder):
        after = {f"{path}/outputs": jnp.ones((n,)) for path, (_, n) in kernels(encoder, self.outputs, "ia3.outputs").items()}
        return after | {f"{path}/inputs": jnp.ones((m,)) for path, (m, _) in kernels(encoder, self.inputs, "ia3.inputs").items()}

    def claims(self, encoder) -> Rules:
        return under(encoder, f"{self.outputs},{self.inputs}", "ia3", "ia3.inputs")

    def sites(self, own, encoder, batch, key, precision):
        def at(path: str) -> Site:
            before, after = own.get(f"{path}/inputs"), own.get(f"{path}/outputs")

            def site(dense, x):
                y = dense(x if before is None else x * before[None, None])
                return y if after is None else y * after[None, None]

            return site

        return {path: at(path) for path in paths_of(own)}

    def merged(self, own, encoder):
        found = dict(encoder)
        for name, scale in own.items():
            path, _, side = name.rpartition("/")
            found[f"{path}/kernel"] = found[f"{path}/kernel"] * (scale[None] if side == "outputs" else scale[:, None])
            if side == "outputs" and f"{path}/bias" in found:
                found[f"{path}/bias"] = found[f"{path}/bias"] * scale
        return found


def vera(stages: tuple[str, ...], config: Any) -> Method:
    """Two vectors for each target train, around matrices that are random, frozen and shared (Kopiczko et al. 2024). Defaults: rank
    256 and d at 0.1 (peft's; the paper's Table 6c asks for 0.1 or less) on query and value. Costs LoRA's work at
    that rank, a tenth of a BERT-base's own; nothing once merged."""
    return Method(deltas=(Vera(**config.vera),))


def ia3(stages: tuple[str, ...], config: Any) -> Method:
    """Keys, values and what enters the second layer of the feed-forward are scaled feature by feature ((IA)^3, Liu et al. 2022,
    who scale there). The fewest parameters of all that is added. Costs 2 passes' work of 3; nothing once merged."""
    return Method(deltas=(Ia3(**config.ia3),))
