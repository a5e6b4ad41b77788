import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from research.errors import InputError
from research.layers import precision
from research.layers.precision import Precision, mixed_einsum
from research.models import families
from research.weights import padded_batch
from tests.weights import tiny

SPECS = {"bld,df->blf": ((3, 5, 16), (16, 8)), "nqd,nkd->nqk": ((4, 5, 16), (4, 7, 16)), "nqk,nkd->nqd": ((4, 5, 7), (4, 7, 16))}


def operands(spec, seed=0):
    random = np.random.RandomState(seed)
    a, b = (random.normal(size=shape).astype(np.float32) for shape in SPECS[spec])
    return a, b, random.normal(size=np.einsum(spec, a, b).shape).astype(np.float32)


def rounded(x):
    return x.astype(ml_dtypes.bfloat16).astype(np.float64)


def transposed(spec):
    (a, b), out = spec.split("->")[0].split(","), spec.split("->")[1]
    return f"{out},{b}->{a}", f"{a},{out}->{b}"


def dots(function, *arguments):
    """Return the operand and result types of every dot in a function's program: [(lhs, rhs, out)]."""
    text = jax.jit(function).lower(*arguments).as_text()
    types = re.findall(r"stablehlo\.dot_general.*: \(tensor<(?:\d+x)*(\w+)>, tensor<(?:\d+x)*(\w+)>\) -> tensor<(?:\d+x)*(\w+)>", text)
    assert len(types) == text.count("stablehlo.dot_general ")
    return types


@pytest.mark.parametrize("spec", SPECS)
def test_mixed_einsum_rounds_only_its_operands(spec):
    a, b, _ = operands(spec)
    actual = mixed_einsum(spec, a, b)
    assert actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, np.einsum(spec, rounded(a), rounded(b)), atol=1e-5)
    error = np.abs(actual - np.einsum(spec, a, b))
    assert 1e-4 < error.max() < 0.1, "near the float32 product, but not equal"


@pytest.mark.parametrize("spec", SPECS)
def test_gradients_round_only_their_operands(spec):
    a, b, g = operands(spec)
    actual = jax.vjp(lambda a, b: mixed_einsum(spec, a, b), a, b)[1](g)
    spec_a, spec_b = transposed(spec)
    expected = np.einsum(spec_a, rounded(g), rounded(b)), np.einsum(spec_b, rounded(a), rounded(g))
    exact = jax.vjp(lambda a, b: Precision("float32").einsum(spec, a, b), a, b)[1](g)
    for grad, expected_grad, exact_grad in zip(actual, expected, exact, strict=True):
        assert grad.dtype == jnp.float32
        np.testing.assert_allclose(grad, expected_grad, atol=1e-5)
        assert 1e-4 < np.abs(grad - exact_grad).max() < 0.15


def test_gradients_have_the_dtypes_of_the_operands():
    a, b, _ = operands("bld,df->blf")
    grads = jax.grad(lambda a, b: mixed_einsum("bld,df->blf", a, b).sum(), (0, 1))(jnp.asarray(a, jnp.bfloat16), b)
    assert [g.dtype for g in grads] == [jnp.bfloat16, jnp.float32]


def test_the_second_operand_is_stored_only_in_its_original_dtype():
    a, b, _ = operands("bld,df->blf")
    b = jnp.asarray(b)
    residuals = jax.tree.leaves(jax.vjp(lambda a: mixed_einsum("bld,df->blf", a, b), a)[1])
    assert sorted((x.dtype.name, x.shape) for x in residuals if x.size) == [("bfloat16", a.shape), ("float32", b.shape)]


@pytest.mark.parametrize("unit, kind", [(True, "bf16"), (False, "f32")])
@pytest.mark.parametrize("spec", SPECS)
def test_every_dot_of_the_backward_pass_has_fast_operands_and_returns_float32(spec, unit, kind, monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: unit)
    a, b, g = operands(spec)
    types = dots(jax.grad(lambda a, b: jnp.sum(g * mixed_einsum(spec, a, b)), (0, 1)), a, b)
    assert types and set(types) == {(kind, kind, "f32")}


@pytest.mark.parametrize("spec", SPECS)
def test_results_are_the_same_with_and_without_a_bfloat16_unit(spec, monkeypatch):
    a, b, g = operands(spec)
    with_unit, without, exact = {}, {}, {}
    for results, unit, name in ((with_unit, True, "bfloat16"), (without, False, "bfloat16"), (exact, False, "float32")):
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda unit=unit: unit)
        value, back = jax.jit(lambda a, b, name=name: jax.vjp(functools.partial(Precision(name).einsum, spec), a, b))(a, b)
        results |= dict(zip(("out", "a", "b"), (value, *back(g)), strict=True))
    for part, value in with_unit.items():
        np.testing.assert_allclose(without[part], value, atol=1e-5)
        assert np.abs(exact[part] - value).max() > 1e-4


@pytest.mark.parametrize("flags, has", [("flags : sse avx2 avx512f", False), ("flags : avx2 amx_bf16", True), ("Features : fp bf16", True)])
def test_bfloat16_support_is_read_from_cpuinfo(flags, has, monkeypatch):
    monkeypatch.setattr(precision.Path, "read_text", lambda path: flags)
    assert precision.multiplies_bfloat16.__wrapped__() == has


def test_a_cpu_without_cpuinfo_is_assumed_to_multiply_bfloat16(monkeypatch, tmp_path):
    monkeypatch.setattr(precision, "Path", lambda path: tmp_path / "nothing")
    assert precision.multiplies_bfloat16.__wrapped__()


def test_jaxs_transpose_has_a_float32_operand():
    a, b, g = operands("bld,df->blf")

    def without_custom_gradient(a, b):
        out = jnp.einsum("bld,df->blf", a.astype(jnp.bfloat16), b.astype(jnp.bfloat16), preferred_element_type=jnp.float32)
        return jnp.sum(g * out)

    assert any("f32" in (lhs, rhs) for lhs, rhs, _ in dots(jax.grad(without_custom_gradient, (0, 1)), a, b))


@pytest.mark.parametrize("name, kind", [("bfloat16", "bf16"), ("float32", "f32")])
def test_every_dot_of_an_encoders_training_step_has_its_precision(name, kind, monkeypatch):
    monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: True)
    model, batch = families.build(tiny.CONFIG, precision=name), padded_batch(**tiny.inputs())
    params = jax.eval_shape(model.init, jax.random.key(0), batch)["params"]

    def loss(params):
        out = model.apply({"params": params}, batch, rngs={"dropout": jax.random.key(0)})
        return jnp.sum(out.last**2) + jnp.sum(out.pooled)

    types = dots(jax.grad(loss), params)
    layers = tiny.CONFIG["num_hidden_layers"]
    # Six kernels and two products of activations in a layer, and the pooler, each with two transposes; the scores are computed twice.
    assert len(types) == 3 * (8 * layers + 1) + layers and set(types) == {(kind, kind, "f32")}


@pytest.mark.parametrize("spec", SPECS)
def test_float32_is_exact(spec):
    a, b, g = operands(spec)
    value, back = jax.vjp(lambda a, b: Precision("float32").einsum(spec, a, b), a, b)
    spec_a, spec_b = transposed(spec)
    np.testing.assert_allclose(value, np.einsum(spec, a.astype(float), b), atol=5e-6)
    for actual, expected in zip(back(g), (np.einsum(spec_a, g.astype(float), b), np.einsum(spec_b, a.astype(float), g)), strict=True):
        np.testing.assert_allclose(actual, expected, atol=5e-6)


NUMBERS = {
    "dense": ((2, 3, 4), (4, 5), (((2,), (0,)), ((), ()))),
    "two contracted": ((2, 3, 4), (3, 4, 5), (((1, 2), (0, 1)), ((), ()))),
    "two contracted, crossed": ((2, 3, 4), (4, 5, 3), (((1, 2), (2, 0)), ((), ()))),
    "batched": ((2, 3, 4), (2, 5, 4), (((2,), (2,)), ((0,), (0,)))),
    "batch inside": ((3, 2, 4), (4, 5, 2), (((2,), (0,)), ((1,), (2,)))),
    "two batched": ((2, 3, 4, 6), (3, 2, 6), (((3,), (2,)), ((0, 1), (1, 0)))),
}


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 0.1)])
def test_dot_general_matches_jax(name, precision, tolerance):
    left, right, numbers = NUMBERS[name]
    random = np.random.RandomState(0)
    a, b = random.normal(size=left).astype(np.float32), random.normal(size=right).astype(np.float32)
    expected = jax.lax.dot_general(a, b, numbers, precision=jax.lax.Precision.HIGHEST)
    actual = Precision(precision).dot_general(a, b, numbers)
    assert actual.shape == expected.shape and actual.dtype == jnp.float32
    np.testing.assert_allclose(actual, expected, atol=tolerance)


def test_a_dense_layer_accepts_dot_general():
    x, params = jnp.ones((2, 3, 4)) / 3, {"kernel": jnp.arange(20.0).reshape(4, 5) / 7, "bias": jnp.arange(5.0)}
    exact = np.asarray(x, float) @ np.asarray(params["kernel"], float) + np.arange(5.0)
    full, rounded = (nn.Dense(5, dot_general=Precision(name).dot_general).apply({"params": params}, x) for name in ("float32", "bfloat16"))
    np.testing.assert_allclose(full, exact, atol=1e-5)
    assert 1e-4 < np.abs(rounded - exact).max() < 0.05


def test_an_unknown_precision_is_an_error():
    with pytest.raises(InputError, match="precision 'bfloat': did you mean 'bfloat16'"):
        Precision("bfloat")
