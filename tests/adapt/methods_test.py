"""Which parameters each method trains, exactly."""

import numpy as np
import pytest

from research.adapt import methods
from research.errors import InputError
from research.params import plan as plans

STAGES = ("embeddings", "layer_0", "layer_1", "layer_2", "layer_3")
EMBEDDINGS = {f"encoder/embeddings/{name}" for name in ("word/embedding", "position/embedding", "norm/scale", "norm/bias")}
LAYERS = [
    {f"encoder/layer_{i}/{name}" for name in ("attention/query/kernel", "attention/query/bias", "mlp/norm/scale", "mlp/up/kernel")}
    for i in range(4)
]
POOLER = {"encoder/pooler/kernel", "encoder/pooler/bias"}
HEAD = {"head/classifier/kernel", "head/classifier/bias"}


def trained(method, pooler=True, stages=STAGES, **config):
    names = EMBEDDINGS.union(*LAYERS[: len(stages) - 1], POOLER if pooler else ()) | HEAD
    params = {}
    for name in sorted(names):
        *path, last = name.split("/")
        folder = params
        for part in path:
            folder = folder.setdefault(part, {})
        folder[last] = np.zeros(2)
    return set(plans.make(params, methods.rules_for(method, stages, {"freeze": "", "top_layers": 2} | config), {}).trained)


@pytest.mark.parametrize("pooler", [True, False])
def test_full_trains_everything(pooler):
    assert trained("full", pooler) == EMBEDDINGS.union(*LAYERS, HEAD, POOLER if pooler else ())


@pytest.mark.parametrize("pooler", [True, False])
def test_linear_probe_trains_the_head_alone(pooler):
    assert trained("linear_probe", pooler) == HEAD


@pytest.mark.parametrize("pooler", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_top_k_trains_the_last_k_layers_and_what_stands_above(k, pooler):
    assert trained("top_k", pooler, top_layers=k) == HEAD.union(*LAYERS[4 - k :], POOLER if pooler else ())


def test_top_k_of_eleven_layers_does_not_take_layer_1_for_layer_10():
    stages = ("embeddings", *(f"layer_{i}" for i in range(11)))
    rules = methods.rules_for("top_k", stages, {"freeze": "", "top_layers": 1})
    names = [f"encoder/{stage}/kernel" for stage in stages] + ["head/kernel"]
    params = {"encoder": {stage: {"kernel": np.zeros(1)} for stage in stages}, "head": {"kernel": np.zeros(1)}}
    plan = plans.make(params, rules, {})
    assert set(plan.trained) == {"encoder/layer_10/kernel", "head/kernel"}
    assert set(plan.entries) == set(names)


@pytest.mark.parametrize("k", [0, -1, 5])
def test_top_k_refuses_a_number_of_layers_that_the_encoder_does_not_have(k):
    with pytest.raises(InputError, match=rf"top_layers={k}: the encoder has 4 layers; use 1 to 4"):
        trained("top_k", top_layers=k)


def test_other_methods_do_not_look_at_top_layers():
    assert trained("full", top_layers=99) == trained("full", top_layers=1)


@pytest.mark.parametrize(
    ("wrong", "hint"), [("top_", "did you mean 'top_k'"), ("linear_prob", "did you mean 'linear_probe'"), ("zz", "known: ")]
)
def test_an_unknown_method_is_an_error_that_names_the_nearest(wrong, hint):
    with pytest.raises(InputError, match=hint):
        trained(wrong)


def test_freeze_patterns_come_before_the_method():
    everything = EMBEDDINGS.union(*LAYERS, HEAD, POOLER)
    assert trained("full", freeze="embeddings/word") == everything - {"encoder/embeddings/word/embedding"}
    assert trained("full", freeze=" layer_0 , pooler,") == everything - LAYERS[0] - POOLER
    assert trained("top_k", top_layers=2, freeze="layer_3") == HEAD | LAYERS[2] | POOLER
    assert trained("full", freeze="") == trained("full", freeze=" , ") == everything


def test_a_freeze_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(InputError, match=r"'freeze layer_7'.*did you mean"):
        trained("full", freeze="layer_7")


def test_every_method_in_the_table_keeps_the_head_training():
    for method in methods.METHODS:
        assert trained(method) >= HEAD, method
