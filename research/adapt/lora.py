"""Deltas on dense layers: low-rank matrices added to a frozen kernel."""

import dataclasses
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.method import Delta, Method, Site
from research.errors import InputError
from research.models.dropout import dropout, mix, token_salt
from research.params import rules
from research.params.plan import FROZEN, Rules


def kernels(encoder: Mapping[str, Any], targets: str, option: str) -> dict[str, tuple[int, int]]:
    """Path of each module with a kernel [m, n] that `targets` (patterns apart by commas) cover -> (m, n).

    Raises InputError, naming `option` and the nearest path, for a pattern that covers none.
    """
    shapes = {
        name.removesuffix("/kernel"): leaf.shape for name, leaf in encoder.items() if name.endswith("/kernel") and len(leaf.shape) == 2
    }
    patterns = [pattern.strip() for pattern in targets.split(",") if pattern.strip()]
    if not patterns:
        raise InputError(f"{option} is empty; give patterns of modules, apart by commas, for example attention/query")
    for pattern in patterns:
        rules.check_matches(option, pattern, shapes)
    return {path: shape for path, shape in shapes.items() if any(rules.matches(pattern, path) for pattern in patterns)}


def keys_of(key: jax.Array, names: Any) -> dict[str, jax.Array]:
    """A key for each name, whatever other names there are."""
    return {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names}


def dropped(x: jax.Array, rate: float, batch: Any, key: jax.Array | None, path: str) -> jax.Array:
    """Dropout of states [B, L, D], a function of (key, path, example, position, feature); without a key, `x`."""
    if key is None or not rate:
        return x
    site = jax.random.bits(keys_of(key, [path])[path], (), jnp.uint32)
    columns = jnp.arange(x.shape[-1], dtype=jnp.uint32)[None, None]
    return dropout(x, mix(token_salt(batch)[:, :, None] + site), columns, rate)


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
        found = {}
        for path, (m, n) in kernels(encoder, self.targets, f"{self.name}.targets").items():
            if not 1 <= self.rank <= min(m, n):
                raise InputError(f"{self.name}.rank={self.rank}: {path} is {m} x {n}; use 1 to {min(m, n)}")
            own = keys_of(key, [path])[path]
            found[f"{path}/a"] = jax.random.uniform(own, (m, self.rank), minval=-(m**-0.5), maxval=m**-0.5)
            found[f"{path}/b"] = jnp.zeros((self.rank, n))
        return found

    def claims(self, encoder) -> Rules:
        paths = kernels(encoder, self.targets, f"{self.name}.targets")
        return {f"under {self.name}": (f"encoder/({'|'.join(paths)})/kernel", FROZEN)}

    def sites(self, own, encoder, batch, key, precision):
        def at(path: str) -> Site:
            def site(dense, x):
                low = precision.einsum("blm,mr->blr", dropped(x, self.dropout, batch, key, path), own[f"{path}/a"])
                return dense(x) + self.scale * precision.einsum("blr,rn->bln", low, own[f"{path}/b"])

            return site

        return {path: at(path) for path in {name.rpartition("/")[0] for name in own}}

    def merged(self, own, encoder):
        paths = {name.rpartition("/")[0] for name in own}
        sums = {f"{path}/kernel": encoder[f"{path}/kernel"] + self.scale * own[f"{path}/a"] @ own[f"{path}/b"] for path in paths}
        return {**encoder, **sums}


def lora(stages: tuple[str, ...], config: Any) -> Method:
    """Low-rank matrices are added to frozen kernels (Hu et al. 2022). Defaults: rank 8 on query and value, alpha 16 (the paper's
    tables for RoBERTa). Costs 2 passes' work of 3: no gradient of a kernel. Can be merged: then it costs nothing to use."""
    return Method(deltas=(Lora(**config.lora),))
