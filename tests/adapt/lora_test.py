"""LoRA and DoRA: the model's outputs against the papers' equations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.adapt.lora import Dora, Lora
from research.adapt.targets import dropped
from research.layers.precision import Precision
from research.params.tree import flatten
from tests.adapt import small

PATH = "layer_1/attention/value"


def lora(x, params, encoder, scale):
    kernel = encoder[f"{PATH}/kernel"] + scale * params[f"{PATH}/a"] @ params[f"{PATH}/b"]
    return x @ kernel + encoder[f"{PATH}/bias"]


def dora(x, params, encoder, scale):
    kernel = encoder[f"{PATH}/kernel"] + scale * params[f"{PATH}/a"] @ params[f"{PATH}/b"]
    return x @ (params[f"{PATH}/magnitude"] * kernel / np.linalg.norm(kernel, axis=0)) + encoder[f"{PATH}/bias"]


@pytest.mark.parametrize(("method", "formula"), [("lora", lora), ("dora", dora)])
@pytest.mark.parametrize(("stabilised", "scale"), [(False, 16 / 8), (True, 16 / 8**0.5)])
def test_a_dense_layer_computes_the_equation(method, formula, stabilised, scale):
    model = small.model(method, **{f"{method}__rank_stabilised": stabilised})
    trainable = small.moved(model)
    ((x,), out), (params, encoder) = small.at(model, trainable, small.batch_of(model), PATH), small.parts(model, trainable, method)
    np.testing.assert_allclose(out, formula(x, params, encoder, scale), atol=2e-5, rtol=0)
    assert small.far(out, formula(x, params, encoder, 1.2 * scale))
    for name in params:
        if name.startswith(PATH):
            assert small.far(out, formula(x, params | {name: params[name] * 1.2}, encoder, scale)), name


def test_only_the_targets_change():
    model, frozen = small.model("lora", lora__targets="layer_1/attention/value"), small.model("linear_probe")
    assert {name.rpartition("/")[0] for name in flatten(model.trainable) if name.startswith("delta")} == {f"delta/lora/{PATH}"}
    batch, trainable = small.batch_of(model), small.moved(model)
    for path, same in (("layer_1/attention/query", True), (PATH, False)):
        unadapted = small.at(frozen, frozen.trainable, batch, path)[1]
        assert np.array_equal(small.at(model, trainable, batch, path)[1], unadapted) == same


def test_the_initial_values_of_a_module_do_not_depend_on_other_targets():
    one, other = (small.model("lora", lora__targets=targets) for targets in ("attention/value", "attention/value,mlp/up"))
    name = f"delta/lora/{PATH}/a"
    a = np.asarray(flatten(one.trainable)[name])
    assert np.array_equal(a, flatten(other.trainable)[name])
    assert not np.array_equal(a, flatten(one.trainable)["delta/lora/layer_0/attention/value/a"])
    assert 0.9 * 32**-0.5 < np.abs(a).max() <= 32**-0.5 and not np.asarray(flatten(one.trainable)[f"delta/lora/{PATH}/b"]).any()


def toy(delta):
    """Return a dense layer of 6 inputs and 5 outputs with a bias, noisy parameters of the delta, and x [2, 3, 6]."""
    random = np.random.default_rng(0)
    encoder = {"dense/kernel": random.normal(size=(6, 5)).astype(np.float32), "dense/bias": random.normal(size=5).astype(np.float32)}
    params = {
        name: np.asarray(leaf) + 0.3 * random.normal(size=leaf.shape).astype(np.float32) for name, leaf in fresh(delta, encoder).items()
    }
    return encoder, params, random.normal(size=(2, 3, 6)).astype(np.float32)


def fresh(delta, encoder):
    return delta.init(jax.random.key(0), encoder)


def run(delta, params, encoder, x, batch=None, key=None):
    dense = lambda x: jnp.einsum("blm,mn->bln", x, encoder["dense/kernel"]) + encoder["dense/bias"][None, None]  # noqa: E731
    return delta.interceptors(params, encoder, batch, key, Precision())["dense"](dense, x)


def test_the_magnitude_begins_as_the_norm_of_each_output():
    delta = Dora(rank=2, alpha=4.0, targets="dense")
    encoder, _, _ = toy(delta)
    magnitude = fresh(delta, encoder)["dense/magnitude"]
    np.testing.assert_allclose(magnitude, np.sqrt((encoder["dense/kernel"] ** 2).sum(0)), rtol=1e-6)
    assert magnitude.shape == (5,) and small.far(np.resize(np.sqrt((encoder["dense/kernel"] ** 2).sum(1)), 5), magnitude)


def test_the_norm_is_a_constant_to_the_gradient():
    delta = Dora(rank=2, alpha=4.0, targets="dense")
    encoder, params, x = toy(delta)
    weights = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
    constant_norm = np.linalg.norm(encoder["dense/kernel"] + 2 * params["dense/a"] @ params["dense/b"], axis=0)

    def equation(params, norm=None):
        kernel = encoder["dense/kernel"] + 2 * params["dense/a"] @ params["dense/b"]
        norm = jnp.sqrt((kernel**2).sum(0)) if norm is None else norm
        y = jnp.einsum("blm,mn->bln", x, kernel * (params["dense/magnitude"] / norm)[None]) + encoder["dense/bias"][None, None]
        return (weights * y).sum()

    grads = jax.grad(lambda params: (weights * run(delta, params, encoder, x)).sum())(params)
    with_constant_norm, with_norm_gradient = jax.grad(equation)(params, constant_norm), jax.grad(equation)(params)
    for name in params:
        np.testing.assert_allclose(grads[name], with_constant_norm[name], atol=1e-4, rtol=1e-5, err_msg=name)
    assert all(small.far(grads[f"dense/{name}"], with_norm_gradient[f"dense/{name}"], 1e-2) for name in "ab")


def test_a_layer_without_a_bias_equals_one_with_a_bias_of_zero():
    delta = Dora(rank=2, alpha=4.0, targets="dense")
    encoder, params, x = toy(delta)
    encoder["dense/bias"] = np.zeros(5, np.float32)
    encoder_without_bias = {"dense/kernel": encoder["dense/kernel"]}
    y = delta.interceptors(params, encoder_without_bias, None, None, Precision())["dense"](
        lambda x: jnp.einsum("blm,mn->bln", x, encoder_without_bias["dense/kernel"]), x
    )
    np.testing.assert_allclose(y, run(delta, params, encoder, x), atol=1e-6)


def batch_of_tokens(rows=2, length=3):
    return {
        "segments": np.ones((rows, length), np.int32),
        "positions": np.tile(np.arange(length, dtype=np.int32), (rows, 1)),
        "examples": np.arange(rows, dtype=np.int32)[:, None],
    }


@pytest.mark.parametrize("cls", [Lora, Dora])
def test_dropout_is_a_function_of_the_key_and_applies_to_the_low_rank_path_only(cls):
    delta, undropped = cls(rank=2, alpha=4.0, targets="dense", dropout=0.5), cls(rank=2, alpha=4.0, targets="dense")
    encoder, params, x = toy(delta)
    batch, keys = batch_of_tokens(), [jax.random.key(i) for i in range(2)]
    one, same_key, other = (run(delta, params, encoder, x, batch, key) for key in (keys[0], keys[0], keys[1]))
    assert np.array_equal(one, same_key) and small.far(one, other)
    assert np.array_equal(run(delta, params, encoder, x, batch, None), run(undropped, params, encoder, x, batch, keys[0]))
    assert small.far(one, run(undropped, params, encoder, x))
    no_update = params | {"dense/b": np.zeros_like(params["dense/b"])}
    assert np.array_equal(run(delta, no_update, encoder, x, batch, keys[0]), run(undropped, no_update, encoder, x))


def test_dropout_drops_the_rate_and_scales_the_rest():
    x, batch, key = jnp.ones((8, 64, 64)), batch_of_tokens(8, 64), jax.random.key(0)
    y = np.asarray(dropped(x, 0.3, batch, key, "one"))
    np.testing.assert_allclose(np.unique(y), [0.0, 1 / 0.7], rtol=1e-6)
    assert abs((y == 0).mean() - 0.3) < 0.01
    assert abs(((y == 0) & (np.asarray(dropped(x, 0.3, batch, key, "other")) == 0)).mean() - 0.09) < 0.01  # another path has another mask
