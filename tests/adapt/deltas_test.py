"""Properties that all deltas on a frozen encoder share."""

import jax
import numpy as np
import pytest

from research.errors import InputError
from research.layers.precision import Precision
from research.params.tree import flatten, merge, unflatten
from tests import runs
from tests.adapt import small

MERGEABLE = ("lora", "dora", "vera", "ia3")
ADAPTERS = ("houlsby", "pfeiffer", "parallel_adapter", "compacter")
PREFIXES = ("prefix", "soft_prompt")
ALL = (*MERGEABLE, *ADAPTERS, *PREFIXES)


@pytest.mark.parametrize("method", ALL)
def test_only_the_delta_and_the_head_train(method):
    model = small.model(method)
    trained = set(flatten(model.trainable))
    assert {name for name in trained if not name.startswith("head/")} == {
        name for name in model.plan.entries if name.startswith(f"delta/{method}/") and not name.startswith("delta/vera/shared/")
    }
    assert {"head/classifier/kernel", "head/classifier/bias"} <= trained
    assert model.plan.frozen_stages(model.encoder.stages) == (0 if method == "soft_prompt" else 1)


@pytest.mark.parametrize("method", (*MERGEABLE, *ADAPTERS))
def test_training_begins_at_the_pretrained_model(method):
    model, frozen = small.model(method), small.model("linear_probe")
    batch = small.batch_of(model)
    unadapted, initial = small.logits(frozen, frozen.trainable, batch), small.logits(model, model.trainable, batch)
    np.testing.assert_allclose(initial, unadapted, atol=1e-6 if method == "dora" else 0, rtol=0)  # DoRA divides by a norm
    assert small.far(small.logits(model, small.moved(model), batch), unadapted)


def test_a_run_builds_the_same_model_as_these_tests():
    built, model = runs.build_model(runs.config(precision="float32", method="houlsby"), ("a", "b")), small.model("houlsby")
    one, other = flatten(built.trainable), flatten(model.trainable)
    assert built.plan == model.plan and one.keys() == other.keys()
    assert all(np.array_equal(one[name], other[name]) for name in one if name.startswith("delta/"))
    batch, trainable = small.batch_of(model), small.moved(model)
    compiled = small.by_example(jax.jit(model.logits)(trainable, model.frozen, batch), batch)
    np.testing.assert_allclose(compiled, small.logits(model, trainable, batch), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL)
def test_packed_and_padded_give_the_same_logits(method):
    model = small.model(method)
    trainable = small.moved(model)
    packed, padded = (small.batch_of(model, layout) for layout in ("packed", "padded"))
    assert packed["tokens"].shape[0] < 12 == padded["tokens"].shape[0]
    one, other = (small.logits(model, trainable, batch) for batch in (packed, padded))
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    assert one.std(0).min() > 1e-3, "the logits vary too little for a comparison"


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL)
def test_with_dropout_packed_and_padded_give_the_same_logits_and_another_key_gives_others(method):
    options = {f"{method}__dropout": 0.3} if method in ("lora", "dora") else {}
    model = small.model(method, **options)
    trainable = small.moved(model)
    packed, padded = (small.batch_of(model, layout) for layout in ("packed", "padded"))
    one, other = (small.logits(model, trainable, batch, jax.random.key(3)) for batch in (packed, padded))
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    assert small.far(one, small.logits(model, trainable, packed, jax.random.key(4)))


@pytest.mark.parametrize("method", ALL)
def test_changing_one_example_changes_no_bit_of_the_others(method):
    model = small.model(method)
    trainable = small.moved(model)
    before, after = (small.logits(model, trainable, small.batch_of(model, change=change)) for change in (False, True))
    others = np.arange(12) != 5
    assert np.array_equal(before[others], after[others])
    assert not np.array_equal(before[5], after[5])


@pytest.mark.slow
@pytest.mark.parametrize("method", ALL)
def test_every_trainable_parameter_has_a_gradient(method):
    model = small.model(method)
    grads, _ = model.gradient(small.moved(model, by=0.1), model.frozen, small.batch_of(model), jax.random.key(0))
    assert grads.keys() == model.trainable.keys()
    for name, grad in flatten(grads).items():
        assert np.isfinite(grad).all(), name
        assert np.abs(grad).max() > 0, name


@pytest.mark.slow
@pytest.mark.parametrize("method", ("lora", "parallel_adapter", "prefix", "freelb", "scalar_mix+lora"))
def test_recomputing_activations_changes_no_gradient(method):
    grads = []
    for remat in (False, True):
        model = small.model(method, remat=remat)
        grads.append(flatten(model.gradient(small.moved(model), model.frozen, small.batch_of(model), jax.random.key(0))[0]))
    for name, grad in grads[0].items():
        np.testing.assert_allclose(grad, grads[1][name], atol=1e-5, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("method", MERGEABLE)
def test_merging_into_the_encoder_gives_the_same_logits_without_the_delta(method):
    model = small.model(method)
    trainable, batch, (delta,) = small.moved(model), small.batch_of(model), model.recipe.deltas
    params = merge(trainable, model.frozen)
    delta_params, encoder = flatten(params["delta"][method]), flatten(params["encoder"])

    def without_delta(encoder):
        encoded = model.encoder.apply({"params": unflatten(encoder)}, batch)
        return small.by_example(model.head.apply({"params": params["head"]}, encoded, batch), batch)

    expected = small.logits(model, trainable, batch)
    merged = delta.merged(delta_params, encoder)
    assert merged.keys() == encoder.keys() and {name for name in encoder if merged[name] is not encoder[name]}
    np.testing.assert_allclose(without_delta(merged), expected, atol=1e-5, rtol=0)
    assert small.far(without_delta(encoder), expected)


@pytest.mark.parametrize("method", (*ADAPTERS, *PREFIXES))
def test_merging_other_deltas_is_refused(method):
    with pytest.raises(InputError, match=f"{method} cannot be merged"):
        small.model(method).recipe.deltas[0].merged({}, {})


@pytest.mark.parametrize("method", MERGEABLE)
def test_an_adapted_kernel_cannot_train_too(method):
    with pytest.raises(InputError, match=rf"full trains encoder/layer_\d/.*, {method} keeps it frozen"):
        runs.plan(f"{method}+full")


def test_adapters_can_be_joined_with_layer_norms_and_deltas_with_each_other():
    trained = runs.plan("houlsby+layernorm").trained
    assert any("delta/houlsby" in name for name in trained) and any("/norm/scale" in name for name in trained)
    model = small.model("lora+prefix+houlsby")
    assert {name.split("/")[1] for name in flatten(model.trainable) if name.startswith("delta/")} == {"lora", "prefix", "houlsby"}
    assert small.far(
        small.logits(model, small.moved(model), small.batch_of(model)), small.logits(model, model.trainable, small.batch_of(model))
    )


def test_of_two_deltas_at_one_module_the_first_is_the_outermost():
    path = "layer_1/attention/output"
    for method in ("lora+houlsby", "houlsby+lora"):
        model = small.model(method, lora__targets=path)
        trainable, batch = small.moved(model), small.batch_of(model)
        ((x,), out), (lora, encoder) = small.at(model, trainable, batch, path), small.parts(model, trainable, "lora")
        houlsby, added = small.parts(model, trainable, "houlsby")[0], 2 * x @ lora[f"{path}/a"] @ lora[f"{path}/b"]
        adapted = lambda y, p=houlsby: y + np.asarray(model.recipe.deltas[method == "lora+houlsby"].adapter(p, path, y, Precision()))  # noqa: E731, B023
        projected = x @ encoder[f"{path}/kernel"] + encoder[f"{path}/bias"]
        expected = adapted(projected) + added, adapted(projected + added)
        if method == "houlsby+lora":
            expected = expected[::-1]
        np.testing.assert_allclose(out, expected[0], atol=1e-4, rtol=0)
        assert small.far(out, expected[1])


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("lora", {"lora__targets": "attention/quer"}, "'lora.targets'.*'attention/quer'.*did you mean 'attention/query'"),
        ("dora", {"dora__targets": "atention/query"}, "'dora.targets'.*did you mean 'attention/query'"),
        ("vera", {"vera__targets": "mlp/dwn"}, "'vera.targets'.*did you mean 'mlp/down'"),
        ("ia3", {"ia3__inputs": "mlp/dwn"}, "'ia3.inputs'.*did you mean 'mlp/down'"),
        ("ia3", {"ia3__outputs": ""}, "ia3.outputs is empty"),
        ("lora", {"lora__rank": 33}, r"lora.rank=33: layer_0/attention/query is 32 x 32; use 1 to 32"),
        ("dora", {"dora__rank": 0}, r"dora.rank=0: layer_0/attention/query is 32 x 32; use 1 to 32"),
        ("lora", {"lora__dropout": 1.0}, "lora.dropout=1.0 must be at least 0 and less than 1"),
        ("vera", {"vera__rank": 0}, "vera.rank=0: .*use 1 or more"),
        ("houlsby", {"houlsby__size": 0}, "houlsby.size=0: .*use 1 or more"),
        ("parallel_adapter", {"parallel_adapter__size": -1}, "parallel_adapter.size=-1: .*use 1 or more"),
        ("pfeiffer", {"pfeiffer__reduction": 0}, "pfeiffer.reduction=0: a layer has 32 features; use 1 to 32"),
        ("pfeiffer", {"pfeiffer__reduction": 33}, "pfeiffer.reduction=33: a layer has 32 features; use 1 to 32"),
        ("compacter", {"compacter__size": 0}, "compacter.size=0: .*use 1 or more"),
        ("compacter", {"compacter__size": 26}, "compacter.size=26: .*compacter.n=4 parts; use 24"),
        ("compacter", {"compacter__n": 5}, "compacter.n=5: layers of 32 features.*a divisor of 32"),
        ("compacter", {"compacter__n": 0}, "compacter.n=0: .*a divisor of 32"),
        ("prefix", {"prefix__tokens": 0}, "prefix.tokens=0: .*use 1 or more"),
        ("soft_prompt", {"soft_prompt__tokens": 0}, "soft_prompt.tokens=0: .*use 1 to "),
        ("soft_prompt", {"soft_prompt__tokens": -3}, "soft_prompt.tokens=-3: .*use 1 to "),
        ("soft_prompt", {"soft_prompt__tokens": 120}, "max_length=32 is over the model's 128 positions less 120 that method=soft_prompt"),
    ],
)
def test_an_invalid_option_is_refused_in_one_line(method, options, message):
    with pytest.raises(InputError, match=message) as caught:
        runs.build_model(runs.config(method=method, **options), ("a", "b"))
    assert "\n" not in str(caught.value)
