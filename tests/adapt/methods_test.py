"""The exact parameters that each method trains."""

import numpy as np
import pytest

from research.adapt import methods
from research.config import fields
from research.errors import InputError
from research.experiment import build as experiments
from research.params.tree import unflatten
from tests import runs

STAGES = ("embeddings", "layer_0", "layer_1", "layer_2", "layer_3")
EMBEDDINGS = {f"encoder/embeddings/{name}" for name in ("word/embedding", "position/embedding", "norm/scale", "norm/bias")}
LAYERS = [
    {f"encoder/layer_{i}/{name}" for name in ("attention/query/kernel", "attention/query/bias", "mlp/norm/scale", "mlp/up/kernel")}
    for i in range(4)
]
POOLER = {"encoder/pooler/kernel", "encoder/pooler/bias"}
HEAD = {"head/classifier/kernel", "head/classifier/bias"}


def plan_of(method, pooler=True, stages=STAGES, freeze="", **config):
    names = EMBEDDINGS.union(*LAYERS[: len(stages) - 1], POOLER if pooler else ()) | HEAD
    c = fields.override(fields.base("imdb", fields.words("demo")), {"method": method, **config})
    return methods.recipe(stages, c).plan(unflatten({name: np.zeros(2) for name in sorted(names)}), freeze, {})


def trained(*args, **named):
    return set(plan_of(*args, **named).trained)


def phases(*args, **named):
    return [set(plan.trained) - HEAD for plan in plan_of(*args, **named).phases]


@pytest.mark.parametrize("pooler", [True, False])
def test_full_trains_everything(pooler):
    assert trained("full", pooler) == EMBEDDINGS.union(*LAYERS, HEAD, POOLER if pooler else ())


@pytest.mark.parametrize("pooler", [True, False])
def test_linear_probe_trains_only_the_head(pooler):
    assert trained("linear_probe", pooler) == HEAD


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_k_trains_the_last_k_layers_and_the_pooler(k, pooler):
    assert trained("top_k", pooler, top_layers=k) == HEAD.union(*LAYERS[4 - k :], POOLER if pooler else ())


def test_top_k_of_eleven_layers_does_not_confuse_layer_1_and_layer_10():
    stages = ("embeddings", *(f"layer_{i}" for i in range(11)))
    names = [f"encoder/{stage}/kernel" for stage in stages] + ["head/kernel"]
    for k in (1, 10):
        c = fields.override(fields.base("imdb", fields.words("demo")), {"method": "top_k", "top_layers": k})
        plan = methods.recipe(stages, c).plan(unflatten({name: np.zeros(1) for name in names}), "", {})
        assert set(plan.trained) == {f"encoder/layer_{i}/kernel" for i in range(11 - k, 11)} | {"head/kernel"}
        assert set(plan.entries) == set(names)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_top_k_refuses_a_number_of_layers_that_the_encoder_does_not_have(k):
    with pytest.raises(InputError, match=rf"top_layers={k}: the encoder has 4 layers; use 1 to 4"):
        trained("top_k", top_layers=k)


def test_other_methods_ignore_top_layers():
    assert trained("full", top_layers=99) == trained("full", top_layers=1)


@pytest.mark.parametrize(
    ("wrong", "hint"), [("top_", "did you mean 'top_k'"), ("linear_prob", "did you mean 'linear_probe'"), ("zz", "known: ")]
)
def test_an_unknown_method_is_refused_with_the_nearest_name(wrong, hint):
    with pytest.raises(InputError, match=hint):
        trained(wrong)


def test_freeze_patterns_override_the_method():
    everything = EMBEDDINGS.union(*LAYERS, HEAD, POOLER)
    assert trained("full", freeze="embeddings/word") == everything - {"encoder/embeddings/word/embedding"}
    assert trained("full", freeze=" layer_0 , pooler,") == everything - LAYERS[0] - POOLER
    assert trained("top_k", top_layers=2, freeze="layer_3") == HEAD | LAYERS[2] | POOLER
    assert trained("full", freeze="") == trained("full", freeze=" , ") == everything


def test_a_freeze_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(InputError, match=r"'freeze layer_7'.*did you mean"):
        trained("full", freeze="layer_7")


@pytest.mark.parametrize("method", sorted(methods.METHODS))
def test_every_method_in_the_table_keeps_the_head_training(method):
    plan = runs.plan(method)
    head = {name for name in plan.entries if name.startswith("head/")}
    assert head and all(head <= set(phase.trained) for phase in (plan, *plan.phases))


@pytest.mark.parametrize("pooler", [True, False])
def test_bitfit_trains_the_biases_and_layernorm_the_norms(pooler):
    everything = EMBEDDINGS.union(*LAYERS, POOLER if pooler else ())
    assert trained("bitfit", pooler) == HEAD | {name for name in everything if name.endswith("/bias")}
    assert trained("layernorm", pooler) == HEAD | {name for name in everything if "/norm/" in name}


def test_layernorm_matches_norms_of_any_name_and_nothing_else():
    names = [
        "encoder/layer_0/sa_norm/scale",
        "encoder/layer_0/norm/bias",
        "encoder/layer_0/normal/scale",
        "encoder/norm/kernel",
        "head/kernel",
    ]
    c = fields.override(fields.base("imdb", fields.words("demo")), {"method": "layernorm"})
    plan = methods.recipe(STAGES[:2], c).plan(unflatten({name: np.zeros(1) for name in names}), "", {})
    assert set(plan.trained) == {names[0], names[1], names[4]}


def test_embeddings_frozen_trains_all_but_the_embeddings():
    assert trained("embeddings_frozen") == HEAD.union(*LAYERS, POOLER)


def test_gradual_unfreezing_trains_the_head_then_unfreezes_stages_from_the_top():
    unfrozen = [set(), LAYERS[3] | POOLER, LAYERS[2], LAYERS[1], LAYERS[0], EMBEDDINGS]
    assert phases("gradual_unfreezing") == [set().union(*unfrozen[: i + 1]) for i in range(6)]
    by_two = phases("gradual_unfreezing", unfreeze_layers=2)
    assert by_two == [set().union(*unfrozen[:i]) for i in (1, 3, 5, 6)]
    assert trained("gradual_unfreezing") == HEAD.union(EMBEDDINGS, *LAYERS, POOLER)


def test_chain_thaw_trains_the_head_then_each_stage_alone_then_everything():
    everything = EMBEDDINGS.union(*LAYERS, POOLER)
    assert phases("chain_thaw") == [set(), EMBEDDINGS, *LAYERS, everything]


def test_a_frozen_pattern_stays_frozen_in_every_phase():
    for method in ("gradual_unfreezing", "chain_thaw"):
        assert not any(EMBEDDINGS & now for now in phases(method, freeze="embeddings"))
        assert phases(method, freeze="embeddings")[-1] == set().union(*LAYERS, POOLER)


@pytest.mark.parametrize(
    ("method", "option", "ratio"), [("llrd", {}, 0.95), ("llrd", {"llrd_decay": 0.8}, 0.8), ("discriminative", {}, 1 / 2.6)]
)
def test_rates_fall_with_depth_from_the_last_layer_down(method, option, ratio):
    """Check that layer l - 1 has the rate of layer l divided by 2.6 (ULMFiT) or times 0.95 (Sun et al.), head and pooler the full rate."""
    plan = plan_of(method, **option)
    assert not plan.phases and len(plan.trained) == len(plan.entries)
    for depth, names in enumerate((HEAD | POOLER | LAYERS[3], LAYERS[2], LAYERS[1], LAYERS[0], EMBEDDINGS)):
        for name in names:
            np.testing.assert_allclose(plan.entries[name].treatment.multiplier, ratio**depth, rtol=1e-12)


def test_empty_config_fields_are_filled_by_the_method():
    rate = {name: methods.METHODS[name].rate for name in ("linear_probe", "lora", "bitfit")}
    joined = (("prefix+lora", rate["lora"]), ("bitfit+gradual_unfreezing", 1), ("lora+chosen_layer+l2sp", rate["lora"]))
    for method, factor in (("full", 1), *rate.items(), ("l2sp", 1), *joined):
        c = fields.override(fields.base("imdb", fields.words("demo")), {"method": method, "base_learning_rate": 2e-5})
        assert (c.learning_rate, c.pooling) == (None, "auto")
        resolved = experiments.resolve(c)
        assert resolved.learning_rate == pytest.approx(2e-5 * factor) and resolved.pooling == "auto" and c.learning_rate is None
    c = fields.override(fields.base("imdb", fields.words("demo")), {"method": "bitfit", "learning_rate": 3e-3, "pooling": "mean"})
    resolved = experiments.resolve(c)
    assert (resolved.learning_rate, resolved.pooling) == (3e-3, "mean")


def test_every_method_has_a_docstring_a_rate_and_options_that_are_fields():
    names = fields.field_names(fields.base("imdb", fields.words("demo")))
    for row in methods.METHODS.values():
        assert row.make.__doc__ and row.rate > 0
        for option in row.options:
            assert any(name == option or name.startswith(f"{option}.") for name in names), option


def test_an_option_of_a_method_that_is_not_chosen_is_refused():
    c = fields.override(fields.base("imdb", fields.words("demo")), {"method": "lora+llrd"})
    experiments.resolve(c, given=["lora.rank", "llrd_decay", "seed", "dropout"])
    for option, owner in (("dora.rank", "dora"), ("top_layers", "top_k"), ("phase_epochs", "gradual_unfreezing and chain_thaw")):
        with pytest.raises(InputError, match=f"--config.{option}= has no effect with method=lora.llrd; it is an option of {owner}$"):
            experiments.resolve(c, given=[option])
