"""Adapters: small bottleneck networks inside the layers of a frozen encoder.

Each adapter's second projection begins at zero, so training begins at exactly the pretrained model, whatever the paper does. The first
projection is drawn as PyTorch draws a linear layer, uniform in +-1 / sqrt(inputs). The layer norms stay frozen, where several papers
train them: `method=houlsby+layernorm` trains both. Adapters cannot be merged, so their cost remains at inference.
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
from research.layers.activations import gelu

DOWN = "mlp/down"  # the second layer of the feed-forward network; its output is added to the residual


@dataclasses.dataclass(frozen=True)
class Adapters(Delta):
    """Replaces the output y [B, L, D] of a module by y + widen(f(narrow(y))), before the module's dropout, residual and norm.

    `narrow` projects D features to the size of the bottleneck, `widen` projects back. Both have a bias.
    """

    targets = DOWN  # patterns of the modules
    activation = staticmethod(jax.nn.relu)

    def bottleneck_size(self, width: int) -> int:
        """Return the size of the bottleneck in a layer of `width` features. Raises InputError for options that the width does not allow."""
        raise NotImplementedError

    def init(self, key, encoder):
        params = {}
        for path, (_, width) in kernels(encoder, self.targets, self.name).items():
            size = self.bottleneck_size(width)
            narrow, widen = jax.random.split(keys_of(key, [path])[path])
            params |= {f"{path}/narrow/{name}": leaf for name, leaf in self.init_projection(narrow, width, size).items()}
            params |= {f"{path}/widen/{name}": leaf for name, leaf in self.init_projection(widen, size, width, zero=True).items()}
        return params

    def init_projection(self, key: jax.Array, m: int, n: int, zero: bool = False) -> dict[str, jax.Array]:
        """Return the initial parameters of a projection of m features to n. With `zero` its output is 0."""
        kernel = jnp.zeros((m, n)) if zero else jax.random.uniform(key, (m, n), minval=-(m**-0.5), maxval=m**-0.5)
        return {"kernel": kernel, "bias": jnp.zeros((n,))}

    def kernel(self, delta_params: Mapping[str, jax.Array], path: str) -> jax.Array:
        """Return the kernel [m, n] of the projection at `path`."""
        return delta_params[f"{path}/kernel"]

    def adapter(self, delta_params: Mapping[str, jax.Array], path: str, x: jax.Array, precision: Any) -> jax.Array:
        """Return widen(f(narrow(x))): [B, L, D] -> [B, L, D]."""
        for name in ("narrow", "widen"):
            product = precision.einsum("blm,mn->bln", x, self.kernel(delta_params, f"{path}/{name}"))
            x = product + delta_params[f"{path}/{name}/bias"][None, None]
            x = self.activation(x) if name == "narrow" else x
        return x

    def interceptors(self, delta_params, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            def interceptor(dense, x):
                y = dense(x)
                return y + self.adapter(delta_params, path, y, precision)

            return interceptor

        return {path: at(path) for path in kernels(encoder, self.targets, self.name)}


@dataclasses.dataclass(frozen=True)
class Houlsby(Adapters):
    """Adapters with a bottleneck of `size` and gelu, after attention and after the feed-forward (Houlsby et al. 2019, figure 2)."""

    size: int
    name = "houlsby"
    targets = f"attention/output,{DOWN}"
    activation = staticmethod(gelu)

    def bottleneck_size(self, width):
        if self.size < 1:
            raise InputError(f"{self.name}.size={self.size}: the bottleneck of an adapter needs at least one feature; use 1 or more")
        return self.size


@dataclasses.dataclass(frozen=True)
class Pfeiffer(Adapters):
    """Adapters with relu, after the feed-forward only (Pfeiffer et al. 2021), `reduction` times narrower than the layer."""

    reduction: int
    name = "pfeiffer"

    def bottleneck_size(self, width):
        if not 1 <= self.reduction <= width:
            raise InputError(f"pfeiffer.reduction={self.reduction}: a layer has {width} features; use 1 to {width}")
        return width // self.reduction


@dataclasses.dataclass(frozen=True)
class Parallel(Houlsby):
    """Adapters beside the feed-forward instead of after it: ffn(x) + scale * widen(relu(narrow(x))), where x [B, L, D] is the input of
    the feed-forward (He et al. 2022, the "scaled parallel adapter")."""

    scale: float
    name = "parallel_adapter"
    targets = DOWN
    activation = staticmethod(jax.nn.relu)

    def interceptors(self, delta_params, encoder, batch, key, precision):
        inputs = {}  # path of `mlp/down` -> the input of `mlp/up`, which is called first

        def at(path: str) -> dict[str, Interceptor]:
            def up(dense, x):
                inputs[path] = x
                return dense(x)

            def down(dense, x):
                return dense(x) + self.scale * self.adapter(delta_params, path, inputs.pop(path), precision)

            return {f"{path.removesuffix('down')}up": up, path: down}

        return {name: interceptor for path in kernels(encoder, self.targets, self.name) for name, interceptor in at(path).items()}


@dataclasses.dataclass(frozen=True)
class Compacter(Houlsby):
    """Houlsby's adapters with kernels W = sum_i A_i kron (s_i t_i), i = 1..n (Karimi Mahabadi et al. 2021).

    All kernels of all layers share `shared/a` [n, n, n]. Each kernel has a vector `s` [n, inputs / n] and `t` [n, outputs / n], which are
    inputs + outputs numbers instead of inputs * outputs. The initial A, s and t give each element of W a variance of 1 / inputs, but t of
    the second projection is zero.
    """

    n: int
    name = "compacter"

    def bottleneck_size(self, width):
        size = super().bottleneck_size(width)
        if not 1 <= self.n <= min(size, width) or width % self.n:
            raise InputError(f"compacter.n={self.n}: layers of {width} features are divided into n parts; use a divisor of {width}")
        if size % self.n:
            raise InputError(f"compacter.size={size}: the size is divided into compacter.n={self.n} parts; use {size - size % self.n}")
        return size

    def init(self, key, encoder):
        params = super().init(key, encoder)
        return params | {"shared/a": jax.random.normal(keys_of(key, ["shared/a"])["shared/a"], (self.n,) * 3) * self.n**-0.5}

    def init_projection(self, key, m, n, zero=False):
        s, t = jax.random.split(key)
        params = {"s": jax.random.normal(s, (self.n, m // self.n)) * m**-0.5, "t": jax.random.normal(t, (self.n, n // self.n))}
        return params | {"bias": jnp.zeros((n,))} | ({"t": jnp.zeros_like(params["t"])} if zero else {})

    def matrices(self, delta_params, encoder):
        paths = {name.removesuffix("/s") for name in delta_params if name.endswith("/s")}
        return {path: (math.prod(delta_params[f"{path}/s"].shape) * math.prod(delta_params[f"{path}/t"].shape),) * 2 for path in paths}

    def kernel(self, delta_params, path):
        a, s, t = delta_params["shared/a"], delta_params[f"{path}/s"], delta_params[f"{path}/t"]
        blocks = jnp.einsum("iab,icd->acbd", a, s[:, :, None] * t[:, None, :], precision=jax.lax.Precision.HIGHEST)
        return blocks.reshape(self.n * s.shape[1], self.n * t.shape[1])


def houlsby(stages: tuple[str, ...], config: Any) -> Method:
    """Train two adapters a layer, after attention and after the feed-forward, with gelu (Houlsby et al. 2019). Default: size 64, the
    paper's where it fixes one. The paper draws both projections from a normal distribution of deviation 0.01, "near-identity"; here the
    second is zero. A step costs 2/3 of full fine-tuning and size / (3 D) more for the adapters, 3% for a BERT-base, which inference
    costs too."""
    return Method(deltas=(Houlsby(**config.houlsby),))


def pfeiffer(stages: tuple[str, ...], config: Any) -> Method:
    """Train one adapter a layer, after the feed-forward, with relu (Pfeiffer et al. 2021). The adapter reads the output of the
    feed-forward, like Houlsby's second one; in the authors' library it reads that output after the residual and the norm. Default: a
    sixteenth of the layer's features, the paper's. A step costs 2/3 of full fine-tuning and, with half as many adapters, half of what
    Houlsby's add."""
    return Method(deltas=(Pfeiffer(**config.pfeiffer),))


def parallel_adapter(stages: tuple[str, ...], config: Any) -> Method:
    """Train one adapter a layer, beside the feed-forward (He et al. 2022). Defaults: scale 4, the paper's; size 64, to compare with
    Houlsby's, where the paper takes 512 for text generation. The cost is that of `pfeiffer` with the same size."""
    return Method(deltas=(Parallel(**config.parallel_adapter),))


def compacter(stages: tuple[str, ...], config: Any) -> Method:
    """Train Houlsby's adapters with kernels that are sums of Kronecker products (Karimi Mahabadi et al. 2021). Defaults: size 24, n = 4
    and a learning rate of 3e-3, the paper's for 768 features. It has a fortieth of the parameters of Houlsby's adapters of size 64; the
    cost is that of Houlsby's adapters of size 24."""
    return Method(deltas=(Compacter(**config.compacter),))
