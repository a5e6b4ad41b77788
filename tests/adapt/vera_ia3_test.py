"""VeRA and (IA)^3: the papers' equations in NumPy, beside what the model computes."""

import numpy as np

from research.params.tree import flatten
from tests.adapt import small


def test_vera_computes_its_equation():
    model, path = small.model("vera", vera__targets="attention/query,mlp/up"), "layer_1/mlp/up"
    trainable = small.moved(model)
    ((x,), out), (own, encoder) = small.at(model, trainable, small.batch_of(model), path), small.parts(model, trainable, "vera")

    def equation(own):
        a, b = own["shared/32x64/a"].T.astype(np.float64), own["shared/32x64/b"].T.astype(np.float64)  # [r, m] and [n, r]
        added = np.diag(own[f"{path}/b"]) @ b @ np.diag(own[f"{path}/d"]) @ a
        return x @ (encoder[f"{path}/kernel"].T + added).T + encoder[f"{path}/bias"]

    np.testing.assert_allclose(out, equation(own), atol=1e-4, rtol=0)
    for name in ("shared/32x64/a", "shared/32x64/b", f"{path}/d", f"{path}/b"):
        assert small.far(out, equation(own | {name: 1.01 * own[name]})), name


def test_vera_shares_one_frozen_pair_for_each_size_and_begins_as_the_paper_says():
    model = small.model("vera", vera__targets="attention/query,attention/value,mlp/up", vera__rank=16)
    own, _ = small.parts(model, model.trainable, "vera")
    assert {name for name in own if name.startswith("shared/")} == {
        f"shared/{size}/{which}" for size in ("32x32", "32x64") for which in "ab"
    }
    assert not any("/shared/" in name for name in flatten(model.trainable))
    assert all("/shared/" in name for name in flatten(model.frozen) if name.startswith("delta/"))
    for name, inputs in (("shared/32x64/a", 32), ("shared/32x64/b", 16)):
        assert 0.9 * (6 / inputs) ** 0.5 < np.abs(own[name]).max() <= (6 / inputs) ** 0.5, name
    for name, leaf in own.items():
        if not name.startswith("shared/"):
            assert leaf.shape == ((16,) if name.endswith("/d") else (64,) if name.endswith("up/b") else (32,))
            assert (leaf == np.float32(0.1 if name.endswith("/d") else 0.0)).all(), name
    other = small.model("vera", vera__targets="attention/key", vera__rank=16)
    assert np.array_equal(small.parts(other, other.trainable, "vera")[0]["shared/32x32/a"], own["shared/32x32/a"])


def test_veras_rank_may_be_over_the_size_of_the_matrix():
    model = small.model("vera")
    assert small.parts(model, model.trainable, "vera")[0]["shared/32x32/a"].shape == (32, 256)


def test_ia3_scales_keys_values_and_what_enters_the_second_layer_of_the_feed_forward():
    model = small.model("ia3")
    trainable = small.moved(model)
    own, encoder = small.parts(model, trainable, "ia3")
    sides = {"attention/key": "outputs", "attention/value": "outputs", "mlp/down": "inputs"}
    assert own.keys() == {f"layer_{i}/{path}/{side}" for i in range(2) for path, side in sides.items()}
    for path, side in ((f"layer_1/{path}", side) for path, side in sides.items()):
        (x,), out = small.at(model, trainable, small.batch_of(model), path)
        # The recorder stands outside the delta, so x is what the module would have read without it.
        scale, kernel, bias = own[f"{path}/{side}"], encoder[f"{path}/kernel"], encoder[f"{path}/bias"]
        wanted = scale * (x @ kernel + bias) if side == "outputs" else (scale * x) @ kernel + bias
        np.testing.assert_allclose(out, wanted, atol=1e-5, rtol=0)
        assert small.far(out, x @ kernel + bias, 1e-4)


def test_ia3_can_scale_both_sides_of_one_module_and_be_merged():
    model, path = small.model("ia3", ia3__outputs="mlp/down", ia3__inputs="mlp/down"), "layer_0/mlp/down"
    trainable = small.moved(model)
    ((x,), out), (own, encoder) = small.at(model, trainable, small.batch_of(model), path), small.parts(model, trainable, "ia3")
    bias, before, after = encoder[f"{path}/bias"], own[f"{path}/inputs"], own[f"{path}/outputs"]
    wanted = ((x * before) @ encoder[f"{path}/kernel"] + bias) * after
    np.testing.assert_allclose(out, wanted, atol=1e-5, rtol=0)
    merged = model.recipe.deltas[0].merged(own, encoder)
    np.testing.assert_allclose(x @ merged[f"{path}/kernel"] + merged[f"{path}/bias"], wanted, atol=1e-5, rtol=0)
    assert small.far(x @ merged[f"{path}/kernel"] + bias, wanted)
