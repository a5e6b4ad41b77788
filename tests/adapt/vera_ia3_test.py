"""VeRA and (IA)^3: the model's outputs against the papers' equations in NumPy."""

import numpy as np

from research.params.tree import flatten
from tests.adapt import small


def test_vera_computes_its_equation():
    model, path = small.model("vera", vera__targets="attention/query,mlp/up"), "layer_1/mlp/up"
    trainable = small.moved(model)
    ((x,), out), (delta_params, encoder) = small.at(model, trainable, small.batch_of(model), path), small.parts(model, trainable, "vera")

    def equation(delta_params):
        a, b = delta_params["shared/32x64/a"].T.astype(np.float64), delta_params["shared/32x64/b"].T.astype(np.float64)  # [r, m] and [n, r]
        added = np.diag(delta_params[f"{path}/b"]) @ b @ np.diag(delta_params[f"{path}/d"]) @ a
        return x @ (encoder[f"{path}/kernel"].T + added).T + encoder[f"{path}/bias"]

    np.testing.assert_allclose(out, equation(delta_params), atol=1e-4, rtol=0)
    for name in ("shared/32x64/a", "shared/32x64/b", f"{path}/d", f"{path}/b"):
        assert small.far(out, equation(delta_params | {name: 1.01 * delta_params[name]})), name


def test_vera_shares_one_frozen_pair_for_each_size_and_begins_as_in_the_paper():
    model = small.model("vera", vera__targets="attention/query,attention/value,mlp/up", vera__rank=16)
    delta_params, _ = small.parts(model, model.trainable, "vera")
    assert {name for name in delta_params if name.startswith("shared/")} == {
        f"shared/{size}/{which}" for size in ("32x32", "32x64") for which in "ab"
    }
    assert not any("/shared/" in name for name in flatten(model.trainable))
    assert all("/shared/" in name for name in flatten(model.frozen) if name.startswith("delta/"))
    for name, inputs in (("shared/32x64/a", 32), ("shared/32x64/b", 16)):
        assert 0.9 * (6 / inputs) ** 0.5 < np.abs(delta_params[name]).max() <= (6 / inputs) ** 0.5, name
    for name, leaf in delta_params.items():
        if not name.startswith("shared/"):
            assert leaf.shape == ((16,) if name.endswith("/d") else (64,) if name.endswith("up/b") else (32,))
            assert (leaf == np.float32(0.1 if name.endswith("/d") else 0.0)).all(), name
    other = small.model("vera", vera__targets="attention/key", vera__rank=16)
    assert np.array_equal(small.parts(other, other.trainable, "vera")[0]["shared/32x32/a"], delta_params["shared/32x32/a"])


def test_the_rank_of_vera_may_exceed_the_size_of_the_matrix():
    model = small.model("vera")
    assert small.parts(model, model.trainable, "vera")[0]["shared/32x32/a"].shape == (32, 256)


def test_ia3_scales_keys_values_and_the_input_of_the_second_feed_forward_layer():
    model = small.model("ia3")
    trainable = small.moved(model)
    delta_params, encoder = small.parts(model, trainable, "ia3")
    sides = {"attention/key": "outputs", "attention/value": "outputs", "mlp/down": "inputs"}
    assert delta_params.keys() == {f"layer_{i}/{path}/{side}" for i in range(2) for path, side in sides.items()}
    for path, side in ((f"layer_1/{path}", side) for path, side in sides.items()):
        (x,), out = small.at(model, trainable, small.batch_of(model), path)
        # small.at records outside the delta, so x is the input of the module without the delta.
        scale, kernel, bias = delta_params[f"{path}/{side}"], encoder[f"{path}/kernel"], encoder[f"{path}/bias"]
        expected = scale * (x @ kernel + bias) if side == "outputs" else (scale * x) @ kernel + bias
        np.testing.assert_allclose(out, expected, atol=1e-5, rtol=0)
        assert small.far(out, x @ kernel + bias, 1e-4)


def test_ia3_can_scale_both_sides_of_one_module_and_be_merged():
    model, path = small.model("ia3", ia3__outputs="mlp/down", ia3__inputs="mlp/down"), "layer_0/mlp/down"
    trainable = small.moved(model)
    ((x,), out), (delta_params, encoder) = small.at(model, trainable, small.batch_of(model), path), small.parts(model, trainable, "ia3")
    bias, before, after = encoder[f"{path}/bias"], delta_params[f"{path}/inputs"], delta_params[f"{path}/outputs"]
    expected = ((x * before) @ encoder[f"{path}/kernel"] + bias) * after
    np.testing.assert_allclose(out, expected, atol=1e-5, rtol=0)
    merged = model.recipe.deltas[0].merged(delta_params, encoder)
    np.testing.assert_allclose(x @ merged[f"{path}/kernel"] + merged[f"{path}/bias"], expected, atol=1e-5, rtol=0)
    assert small.far(x @ merged[f"{path}/kernel"] + bias, expected)
