"""(IA)^3: features of dense layers' inputs and outputs are scaled (Liu et al. 2022)."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import kernels, paths_of, under
from research.params.plan import Rules


@dataclasses.dataclass(frozen=True)
class Ia3(Delta):
    """l_out * (W (l_in * x) + bias), with l_out [n] at the modules `outputs` and l_in [m] at the modules `inputs`, all beginning at
    one (Liu et al. 2022, section 3.3)."""

    outputs: str
    inputs: str
    name = "ia3"
    no_decay_pattern = "inputs|outputs"

    def init(self, key, encoder):
        after = {f"{path}/outputs": jnp.ones((n,)) for path, (_, n) in kernels(encoder, self.outputs, "ia3.outputs").items()}
        return after | {f"{path}/inputs": jnp.ones((m,)) for path, (m, _) in kernels(encoder, self.inputs, "ia3.inputs").items()}

    def freeze_rules(self, encoder) -> Rules:
        return under(encoder, f"{self.outputs},{self.inputs}", "ia3", "ia3.inputs")

    def interceptors(self, own, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            before, after = own.get(f"{path}/inputs"), own.get(f"{path}/outputs")

            def interceptor(dense, x):
                y = dense(x if before is None else x * before[None, None])
                return y if after is None else y * after[None, None]

            return interceptor

        return {path: at(path) for path in paths_of(own)}

    def merged(self, own, encoder):
        found = dict(encoder)
        for name, scale in own.items():
            path, _, side = name.rpartition("/")
            found[f"{path}/kernel"] = found[f"{path}/kernel"] * (scale[None] if side == "outputs" else scale[:, None])
            if side == "outputs" and f"{path}/bias" in found:
                found[f"{path}/bias"] = found[f"{path}/bias"] * scale
        return found


def ia3(stages: tuple[str, ...], config: Any) -> Method:
    """Keys, values and what enters the second layer of the feed-forward are scaled feature by feature ((IA)^3, Liu et al. 2022,
    who scale there). The fewest parameters of all that is added. Costs 2 passes' work of 3; nothing once merged."""
    return Method(deltas=(Ia3(**config.ia3),))
