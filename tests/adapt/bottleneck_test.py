"""Adapters: the papers' equations in NumPy, beside what the model computes."""

import math

import numpy as np
import pytest

from research.params.tree import flatten
from tests.adapt import small

BOTH = {f"layer_{i}/{place}" for i in range(2) for place in ("attention/output", "mlp/down")}
AFTER = {f"layer_{i}/mlp/down" for i in range(2)}


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / 2**0.5))


def relu(x):
    return np.maximum(x, 0)


def kernel_of(own, path):
    """The kernel, or the sum of Kronecker products that stands for it."""
    if f"{path}/kernel" in own:
        return own[f"{path}/kernel"]
    return sum(np.kron(a, np.outer(s, t)) for a, s, t in zip(own["shared/a"], own[f"{path}/s"], own[f"{path}/t"], strict=True))


def adapter(x, own, path, activation):
    inner = activation(x @ kernel_of(own, f"{path}/narrow") + own[f"{path}/narrow/bias"])
    return inner @ kernel_of(own, f"{path}/widen") + own[f"{path}/widen/bias"]


def perturbed(own, path):
    """Each parameter that the adapter at `path` uses, a little off."""
    return [(name, own | {name: own[name] * 1.05}) for name in own if name.startswith((path, "shared/"))]


@pytest.mark.parametrize(
    ("method", "activation", "other", "places", "size"),
    [("houlsby", gelu, relu, BOTH, 64), ("pfeiffer", relu, gelu, AFTER, 2), ("compacter", gelu, relu, BOTH, 24)],
)
def test_an_adapter_changes_what_a_module_gives_by_the_equation(method, activation, other, places, size):
    model = small.model(method)
    trainable, batch = small.moved(model), small.batch_of(model)
    own, encoder = small.parts(model, trainable, method)
    assert {name.rpartition("/narrow/")[0] for name in own if "/narrow/" in name} == places
    for path in sorted(places):
        (x,), out = small.at(model, trainable, batch, path)
        assert own[f"{path}/narrow/bias"].shape == (size,)
        y = x @ encoder[f"{path}/kernel"] + encoder[f"{path}/bias"]
        np.testing.assert_allclose(out, y + adapter(y, own, path, activation), atol=1e-4, rtol=0)
        assert small.far(out, y + adapter(y, own, path, other)) and small.far(out, adapter(y, own, path, activation), 2e-4)
        for name, off in perturbed(own, path):
            assert small.far(out, y + adapter(y, off, path, activation), 2e-4), name


def test_the_parallel_adapter_reads_what_the_feed_forward_reads_and_adds_to_what_it_gives():
    model = small.model("parallel_adapter")
    trainable, batch = small.moved(model), small.batch_of(model)
    own, encoder = small.parts(model, trainable, "parallel_adapter")
    for path in sorted(AFTER):
        (inner,), out = small.at(model, trainable, batch, path)
        (x,), _ = small.at(model, trainable, batch, path.replace("down", "up"))
        plain = inner @ encoder[f"{path}/kernel"] + encoder[f"{path}/bias"]
        wanted = lambda own, x=x, path=path, plain=plain: plain + 4 * adapter(x, own, path, relu)  # noqa: E731
        np.testing.assert_allclose(out, wanted(own), atol=1e-4, rtol=0)
        assert small.far(out, plain + adapter(x, own, path, relu)) and small.far(out, plain + 4 * adapter(plain, own, path, relu))
        for name, off in perturbed(own, path):
            assert small.far(out, wanted(off)), name


@pytest.mark.slow
def test_the_options_are_heeded():
    scaled = small.model("parallel_adapter", parallel_adapter__scale=0.0)
    batch = small.batch_of(scaled)
    np.testing.assert_allclose(
        small.logits(scaled, small.moved(scaled), batch), small.logits(scaled, scaled.trainable, batch), atol=1e-6, rtol=0
    )
    for method, option, wanted in (("houlsby", "size", 5), ("parallel_adapter", "size", 5), ("pfeiffer", "reduction", 4)):
        trainable = flatten(small.model(method, **{f"{method}__{option}": wanted}).trainable)
        size = 32 // wanted if option == "reduction" else wanted
        assert trainable[f"delta/{method}/layer_1/mlp/down/narrow/kernel"].shape == (32, size)
        assert trainable[f"delta/{method}/layer_1/mlp/down/widen/kernel"].shape == (size, 32)


def test_compacter_has_one_set_of_small_matrices_and_vectors_for_each_kernel():
    model = small.model("compacter")
    own, _ = small.parts(model, model.trainable, "compacter")
    assert own["shared/a"].shape == (4, 4, 4) and sum(name.startswith("shared/") for name in own) == 1
    shapes = {name.rpartition("down/")[2]: leaf.shape for name, leaf in own.items() if name.startswith("layer_1/mlp/down/")}
    assert shapes == {
        "narrow/s": (4, 8),
        "narrow/t": (4, 6),
        "narrow/bias": (24,),
        "widen/s": (4, 6),
        "widen/t": (4, 8),
        "widen/bias": (32,),
    }
    draws = [kernel_of(own, f"{path}/narrow") for path in BOTH]
    assert kernel_of(own, "layer_0/mlp/down/narrow").shape == (32, 24) and not kernel_of(own, "layer_0/mlp/down/widen").any()
    assert 0.2 < np.var(draws) * 32 < 5  # of order 1 / inputs
