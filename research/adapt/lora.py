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


def paths_of(own: Mapping[str, Any]) -> list[str]:
    """The paths under which parameters of a delta stand: those of the modules that it changes."""
    return sorted({name.rpartition("/")[0] for name in own})


def under(encoder: Mapping[str, Any], targets: str, name: str, option: str) -> Rules:
    """The rule by which the kernels that a delta `name` adds to, or multiplies, stay frozen."""
    return {f"under {name}": (f"encoder/({'|'.join(kernels(encoder, targets, option))})/kernel", FROZEN)}


def keys_of(key: jax.Array, names: Any) -> dict[str, jax.Array]:
    """A key for each name, whatever other names there are."""
    return {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names}


def dropped(x: jax.Array, rate: float, batch: Any, key: jax.Array | None, path: str) -> jax.Array:
    """Dropout of states [B, L, D], a function of (key, path, example, position, feature); without a key, `x`.

    What a layer reads beside tokens, [1, 2 L, D], stands for distances from L - 1 down: DeBERTa's. There it is one of (key, path,
    distance, feature), so that it does not depend on the length of a row either.
    """
    if key is None or not rate:
        return x
    if x.shape[:2] == batch["segments"].shape:
        places = token_salt(batch)
    else:
        places = mix((x.shape[1] // 2 - jnp.arange(x.shape[1])).astype(jnp.uint32))[None]
    site = jax.random.bits(keys_of(key, [path])[path], (), jnp.uint32)
    columns = jnp.arange(x.shape[-1], dtype=jnp.uint32)[None, None]
    return dropout(x, mix(places[:, :, None] + site), columns, rate)


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

    def claims(self, encoder) -> Rules:
        return under(encoder, self.targets, self.name, f"{self.name}.targets")

    def low_rank(self, own, batch, key, precision, path: str, x: jax.Array) -> jax.Array:
        """scale * B A x for the module at `path`: [B, L, m] -> [B, L, n]."""
        low = precision.einsum("blm,mr->blr", dropped(x, self.dropout, batch, key, path), own[f"{path}/a"])
        return self.scale * precision.einsum("blr,rn->bln", low, own[f"{path}/b"])

    def sites(self, own, encoder, batch, key, precision):
        def at(path: str) -> Site:
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
    spared = "magnitude"

    def init(self, key, encoder):
        found = super().init(key, encoder)
        return found | {f"{path}/magnitude": norms(encoder[f"{path}/kernel"]) for path in paths_of(found)}

    def sites(self, own, encoder, batch, key, precision):
        def at(path: str) -> Site:
            bias = encoder.get(f"{path}/bias", jnp.zeros_like(own[f"{path}/magnitude"]))[None, None]

            def site(dense, x):
                norm = norms(jax.lax.stop_gradient(self.summed(own, encoder, path)))
                factor = (own[f"{path}/magnitude"] / norm)[None, None]
                y = dense(x)
                # The bias is not scaled. Written as a change of y, which is exactly zero where the factor is one.
                return y + (factor - 1.0) * (y - bias) + factor * self.low_rank(own, batch, key, precision, path, x)

            return site

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
