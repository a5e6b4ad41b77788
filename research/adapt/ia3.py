"""(IA)^3: trained vectors that scale the inputs and outputs of dense layers (Liu et al. 2022)."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import freeze_kernels, kernels, paths_of
from research.params.plan import Rules


@dataclasses.dataclass(frozen=True)
class Ia3(Delta):
    """Computes l_out * (W (l_in * x) + bias), with a vector l_out [n] at the modules `outputs` and l_in [m] at the modules `inputs`.

    All vectors begin at one (Liu et al. 2022, section 3.3).
    """

    outputs: str
    inputs: str
    name = "ia3"
    no_decay_pattern = "inputs|outputs"

    def init(self, key, encoder):
        outputs = {f"{path}/outputs": jnp.ones((n,)) for path, (_, n) in kernels(encoder, self.outputs, "ia3.outputs").items()}
        return outputs | {f"{path}/inputs": jnp.ones((m,)) for path, (m, _) in kernels(encoder, self.inputs, "ia3.inputs").items()}

    def freeze_rules(self, encoder) -> Rules:
        return freeze_kernels(encoder, f"{self.outputs},{self.inputs}", "ia3", "ia3.inputs")

    def interceptors(self, delta_params, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            l_in, l_out = delta_params.get(f"{path}/inputs"), delta_params.get(f"{path}/outputs")

            def interceptor(dense, x):
                y = dense(x if l_in is None else x * l_in[None, None])
                return y if l_out is None else y * l_out[None, None]

            return interceptor

        return {path: at(path) for path in paths_of(delta_params)}

    def merged(self, delta_params, encoder):
        params = dict(encoder)
        for name, scale in delta_params.items():
            path, _, side = name.rpartition("/")
            params[f"{path}/kernel"] = params[f"{path}/kernel"] * (scale[None] if side == "outputs" else scale[:, None])
            if side == "outputs" and f"{path}/bias" in params:
                params[f"{path}/bias"] = params[f"{path}/bias"] * scale
        return params


def ia3(stages: tuple[str, ...], config: Any) -> Method:
    """Train vectors that scale the keys, the values and the input of the second layer of the feed-forward, feature by feature ((IA)^3,
    Liu et al. 2022, with the paper's modules as defaults). It has the fewest parameters of all deltas. A step costs 2/3 of full
    fine-tuning; after merging, inference costs nothing more."""
    return Method(deltas=(Ia3(**config.ia3),))
