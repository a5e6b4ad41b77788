"""Adapters: small networks put into the layers of a frozen encoder.

All begin with a second projection of zero, so training begins at exactly the frozen model, whatever the paper; the first is drawn as
PyTorch draws a linear layer, uniform in +-1 / sqrt(inputs). They leave the layer norms frozen, as all that is not theirs, where
several papers train them: `method=houlsby+layernorm` does both. None can be merged, so their cost stays when the model is used.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import kernels, keys_of
from research.errors import InputError

DOWN = "mlp/down"  # the second layer of the feed-forward, whose output joins the residual


def gelu(x: jax.Array) -> jax.Array:
    """x * Phi(x), exactly, as in BERT."""
    return jax.nn.gelu(x, approximate=False)


@dataclasses.dataclass(frozen=True)
class Adapters(Delta):
    """y + widen(f(narrow(y))) instead of the y [B, L, D] that a module gives, before its dropout, residual and norm: `narrow` from D
    features to the few of the bottleneck, `widen` back, both with a bias."""

    places = DOWN  # patterns of the modules
    activation = staticmethod(jax.nn.relu)

    def between(self, width: int) -> int:
        """The size of the bottleneck in a layer of `width` features. Raises InputError where that makes no sense."""
        raise NotImplementedError

    def init(self, key, encoder):
        found = {}
        for path, (_, width) in kernels(encoder, self.places, self.name).items():
            size = self.between(width)
            narrow, widen = jax.random.split(keys_of(key, [path])[path])
            found |= {f"{path}/narrow/{name}": leaf for name, leaf in self.fresh(narrow, width, size).items()}
            found |= {f"{path}/widen/{name}": leaf for name, leaf in self.fresh(widen, size, width, zero=True).items()}
        return found

    def fresh(self, key: jax.Array, m: int, n: int, zero: bool = False) -> dict[str, jax.Array]:
        """Parameters of a projection of m features to n, of nothing if `zero`."""
        kernel = jnp.zeros((m, n)) if zero else jax.random.uniform(key, (m, n), minval=-(m**-0.5), maxval=m**-0.5)
        return {"kernel": kernel, "bias": jnp.zeros((n,))}

    def matrix(self, own: Mapping[str, jax.Array], path: str) -> jax.Array:
        """The kernel [m, n] of the projection at `path`."""
        return own[f"{path}/kernel"]

    def adapter(self, own: Mapping[str, jax.Array], path: str, x: jax.Array, precision: Any) -> jax.Array:
        """widen(f(narrow(x))): [B, L, D] -> [B, L, D]."""
        for name in ("narrow", "widen"):
            x = precision.einsum("blm,mn->bln", x, self.matrix(own, f"{path}/{name}")) + own[f"{path}/{name}/bias"][None, None]
            x = self.activation(x) if name == "narrow" else x
        return x

    def interceptors(self, own, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            def interceptor(dense, x):
                y = dense(x)
                return y + self.adapter(own, path, y, precision)

            return interceptor

        return {path: at(path) for path in kernels(encoder, self.places, self.name)}


@dataclasses.dataclass(frozen=True)
class Houlsby(Adapters):
    """Adapters of `size` after attention and after the feed-forward, with gelu (Houlsby et al. 2019, figure 2)."""

    size: int
    name = "houlsby"
    places = f"attention/output,{DOWN}"
    activation = staticmethod(gelu)

    def between(self, width):
        if self.size < 1:
            raise InputError(f"{self.name}.size={self.size}: an adapter needs a feature between its two layers; use 1 or more")
        return self.size


@dataclasses.dataclass(frozen=True)
class Pfeiffer(Adapters):
    """Adapters after the feed-forward alone, with relu (Pfeiffer et al. 2021), `reduction` times narrower than the layer."""

    reduction: int
    name = "pfeiffer"

    def between(self, width):
        if not 1 <= self.reduction <= width:
            raise InputError(f"pfeiffer.reduction={self.reduction}: a layer has {width} features; use 1 to {width}")
        return width // self.reduction


@dataclasses.dataclass(frozen=True)
class Parallel(Houlsby):
    """ffn(x) + scale * widen(relu(narrow(x))), with x [B, L, D] what the feed-forward reads: an adapter beside it instead of behind
    (He et al. 2022, the "scaled parallel adapter")."""

    scale: float
    name = "parallel_adapter"
    places = DOWN
    activation = staticmethod(jax.nn.relu)

    def interceptors(self, own, encoder, batch, key, precision):
        read = {}  # from `mlp/up`, which comes first, to `mlp/down` of the same layer

        def at(path: str) -> dict[str, Interceptor]:
            def up(dense, x):
                read[path] = x
                return dense(x)

            def down(dense, x):
                return dense(x) + self.scale * self.adapter(own, path, read.pop(path), precision)

            return {f"{path.removesuffix('down')}up": up, path: down}

        return {name: interceptor for path in kernels(encoder, self.places, self.name) for name, interceptor in at(path).items()}


@dataclasses.dataclass(frozen=True)
class Compacter(Houlsby):
    """Houlsby's adapters with kernels W = sum_i A_i kron (s_i t_i), i = 1..n (Karimi Mahabadi et al. 2021).

    `shared/a` [n, n, n] serves every kernel of every layer; `s` [n, inputs / n] and `t` [n, outputs / n] are the kernel's own, so
    one costs inputs + outputs numbers instead of inputs * outputs. A, s and t are drawn so that an element of W has variance
    1 / inputs; t of the second projection is zero.
    """

    n: int
    name = "compacter"

    def between(self, width):
        size = super().between(width)
        if not 1 <= self.n <= min(size, width) or width % self.n:
            raise InputError(f"compacter.n={self.n}: layers of {width} features are cut in so many parts; use a divisor of {width}")
        if size % self.n:
            raise InputError(f"compacter.size={size}: it is cut in compacter.n={self.n} parts; use {size - size % self.n}")
        return size

    def init(self, key, encoder):
        found = super().init(key, encoder)
        return found | {"shared/a": jax.random.normal(keys_of(key, ["shared/a"])["shared/a"], (self.n,) * 3) * self.n**-0.5}

    def fresh(self, key, m, n, zero=False):
        s, t = jax.random.split(key)
        own = {"s": jax.random.normal(s, (self.n, m // self.n)) * m**-0.5, "t": jax.random.normal(t, (self.n, n // self.n))}
        return own | {"bias": jnp.zeros((n,))} | ({"t": jnp.zeros_like(own["t"])} if zero else {})

    def matrices(self, own, encoder):
        sides = {name.removesuffix("/s") for name in own if name.endswith("/s")}
        return {path: (math.prod(own[f"{path}/s"].shape) * math.prod(own[f"{path}/t"].shape),) * 2 for path in sides}

    def matrix(self, own, path):
        a, s, t = own["shared/a"], own[f"{path}/s"], own[f"{path}/t"]
        blocks = jnp.einsum("iab,icd->acbd", a, s[:, :, None] * t[:, None, :], precision=jax.lax.Precision.HIGHEST)
        return blocks.reshape(self.n * s.shape[1], self.n * t.shape[1])


def houlsby(stages: tuple[str, ...], config: Any) -> Method:
    """Two adapters a layer, after attention and after the feed-forward, with gelu (Houlsby et al. 2019). Default: size 64, the
    paper's where it fixes one. It draws both projections from a normal distribution of deviation 0.01, "near-identity"; here the second
    is zero. Costs 2 passes' work of 3, and size / (3 D) more for them, 3% for a BERT-base, now and when used."""
    return Method(deltas=(Houlsby(**config.houlsby),))


def pfeiffer(stages: tuple[str, ...], config: Any) -> Method:
    """One adapter a layer, after the feed-forward, with relu (Pfeiffer et al. 2021). It reads what the feed-forward gives, as Houlsby's
    second one does; the authors' library has it read that with the residual added and normalised. Default: a sixteenth of the
    layer's features, the paper's. Costs 2 passes' work of 3 and, by half of Houlsby's places, half of what they add."""
    return Method(deltas=(Pfeiffer(**config.pfeiffer),))


def parallel_adapter(stages: tuple[str, ...], config: Any) -> Method:
    """One adapter a layer, beside the feed-forward (He et al. 2022). Defaults: scale 4, the paper's; size 64, to compare with
    Houlsby's, where the paper takes 512 to generate text. Costs as `pfeiffer` of the same size."""
    return Method(deltas=(Parallel(**config.parallel_adapter),))


def compacter(stages: tuple[str, ...], config: Any) -> Method:
    """Houlsby's adapters of sums of Kronecker products (Karimi Mahabadi et al. 2021). Defaults: size 24, n = 4 and a rate of 3e-3,
    the paper's for 768 features. A fortieth of the parameters of Houlsby's 64; the work is that of an adapter of size 24."""
    return Method(deltas=(Compacter(**config.compacter),))
