"""Adapters: the model's outputs against the papers' equations in NumPy."""

import math

import numpy as np
import pytest

from research.params.tree import flatten
from tests.adapt import small

BOTH = {f"layer_{i}/{module}" for i in range(2) for module in ("attention/output", "mlp/down")}
AFTER = {f"layer_{i}/mlp/down" for i in range(2)}


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5))


def relu(x):
    return np.maximum(x, 0)


def kernel_of(delta_params, path):
    """Return the kernel at `path`; for Compacter, the sum of Kronecker products."""
    if f"{path}/kernel" in delta_params:
        return delta_params[f"{path}/kernel"]
    return sum(
        np.kron(a, np.outer(s, t))
        for a, s, t in zip(delta_params["shared/a"], delta_params[f"{path}/s"], delta_params[f"{path}/t"], strict=True)
    )


def adapter(x, delta_params, path, activation):
    inner = activation(x @ kernel_of(delta_params, f"{path}/narrow") + delta_params[f"{path}/narrow/bias"])
    return inner @ kernel_of(delta_params, f"{path}/widen") + delta_params[f"{path}/widen/bias"]


def perturbed(delta_params, path):
    """Return (name, parameters with this one scaled by 1.05) for each parameter that the adapter at `path` uses."""
    return [(name, delta_params | {name: delta_params[name] * 1.05}) for name in delta_params if name.startswith((path, "shared/"))]


@pytest.mark.parametrize(
    ("method", "activation", "other", "paths", "size"),
    [("houlsby", gelu, relu, BOTH, 64), ("pfeiffer", relu, gelu, AFTER, 2), ("compacter", gelu, relu, BOTH, 24)],
)
def test_an_adapter_changes_the_output_of_a_module_by_the_equation(method, activation, other, paths, size):
    model = small.model(method)
    trainable, batch = small.moved(model), small.batch_of(model)
    delta_params, encoder = small.parts(model, trainable, method)
    assert {name.rpartition("/narrow/")[0] for name in delta_params if "/narrow/" in name} == paths
    for path in sorted(paths):
        (x,), out = small.at(model, trainable, batch, path)
        assert delta_params[f"{path}/narrow/bias"].shape == (size,)
        y = x @ encoder[f"{path}/kernel"] + encoder[f"{path}/bias"]
        np.testing.assert_allclose(out, y + adapter(y, delta_params, path, activation), atol=1e-4, rtol=0)
        assert small.far(out, y + adapter(y, delta_params, path, other))
        assert small.far(out, adapter(y, delta_params, path, activation), 2e-4)
        for name, changed in perturbed(delta_params, path):
            assert small.far(out, y + adapter(y, changed, path, activation), 2e-4), name


def test_the_parallel_adapter_reads_the_input_of_the_feed_forward_and_adds_to_its_output():
    model = small.model("parallel_adapter")
    trainable, batch = small.moved(model), small.batch_of(model)
    delta_params, encoder = small.parts(model, trainable, "parallel_adapter")
    for path in sorted(AFTER):
        (inner,), out = small.at(model, trainable, batch, path)
        (x,), _ = small.at(model, trainable, batch, path.replace("down", "up"))
        projected = inner @ encoder[f"{path}/kernel"] + encoder[f"{path}/bias"]
        expected = lambda delta_params, x=x, path=path, y=projected: y + 4 * adapter(x, delta_params, path, relu)  # noqa: E731
        np.testing.assert_allclose(out, expected(delta_params), atol=1e-4, rtol=0)
        assert small.far(out, projected + adapter(x, delta_params, path, relu))
        assert small.far(out, projected + 4 * adapter(projected, delta_params, path, relu))
        for name, changed in perturbed(delta_params, path):
            assert small.far(out, expected(changed)), name


@pytest.mark.slow
def test_the_options_set_scale_and_sizes():
    scaled = small.model("parallel_adapter", parallel_adapter__scale=0.0)
    batch = small.batch_of(scaled)
    np.testing.assert_allclose(
        small.logits(scaled, small.moved(scaled), batch), small.logits(scaled, scaled.trainable, batch), atol=1e-6, rtol=0
    )
    for method, option, value in (("houlsby", "size", 5), ("parallel_adapter", "size", 5), ("pfeiffer", "reduction", 4)):
        trainable = flatten(small.model(method, **{f"{method}__{option}": value}).trainable)
        size = 32 // value if option == "reduction" else value
        assert trainable[f"delta/{method}/layer_1/mlp/down/narrow/kernel"].shape == (32, size)
        assert trainable[f"delta/{method}/layer_1/mlp/down/widen/kernel"].shape == (size, 32)


def test_compacter_has_one_set_of_small_matrices_and_vectors_for_each_kernel():
    model = small.model("compacter")
    delta_params, _ = small.parts(model, model.trainable, "compacter")
    assert delta_params["shared/a"].shape == (4, 4, 4) and sum(name.startswith("shared/") for name in delta_params) == 1
    shapes = {name.rpartition("down/")[2]: leaf.shape for name, leaf in delta_params.items() if name.startswith("layer_1/mlp/down/")}
    assert shapes == {
        "narrow/s": (4, 8),
        "narrow/t": (4, 6),
        "narrow/bias": (24,),
        "widen/s": (4, 6),
        "widen/t": (4, 8),
        "widen/bias": (32,),
    }
    draws = [kernel_of(delta_params, f"{path}/narrow") for path in BOTH]
    assert kernel_of(delta_params, "layer_0/mlp/down/narrow").shape == (32, 24)
    assert not kernel_of(delta_params, "layer_0/mlp/down/widen").any()
    assert 0.2 < np.var(draws) * 32 < 5  # of order 1 / inputs
