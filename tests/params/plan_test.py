"""Test plans: the treatment of every parameter in a run."""

import numpy as np
import pytest

from research.adapt import methods
from research.config import fields
from research.errors import InputError
from research.params import plan as plans
from research.params.plan import FROZEN, Treatment
from tests import runs

STAGES = ("embeddings", "layer_0", "layer_1", "layer_2")
NO_DECAY = {"bias": "bias", "norm": ".*/(norm|.*_norm)/scale"}


def params():
    layer = {
        "attention": {"query": {"kernel": np.zeros((4, 4)), "bias": np.zeros(4)}},
        "mlp": {"norm": {"scale": np.zeros(4), "bias": np.zeros(4)}},
    }
    encoder = {"embeddings": {"word": {"embedding": np.zeros((10, 4))}}, "pooler": {"kernel": np.zeros((4, 4)), "bias": np.zeros(4)}}
    return {
        "encoder": encoder | {f"layer_{i}": layer for i in range(3)},
        "head": {"classifier": {"kernel": np.zeros((4, 2)), "bias": np.zeros(2)}},
    }


def plan_of(method="full", freeze="", top_layers=2, no_decay=NO_DECAY, **changes):
    c = fields.override(fields.base("imdb", fields.words("")), {"method": method, "top_layers": top_layers, **changes})
    return methods.recipe(STAGES, c).plan(params(), freeze, no_decay)


def test_every_parameter_has_an_entry_with_its_size():
    entries = plan_of().entries
    assert len(entries) == 1 + 2 + 3 * 4 + 2
    assert entries["encoder/layer_1/attention/query/kernel"].size == 16
    assert sum(entry.size for entry in entries.values()) == 40 + 20 + 3 * 28 + 10


def test_groups_have_one_multiplier_and_one_weight_decay():
    rules = {"low": ("encoder/layer_0", Treatment(multiplier=0.5)), "frozen": ("embeddings", FROZEN), "rest": (".*", Treatment())}
    plan = plans.make(params(), rules, NO_DECAY)
    groups = {name: entry.group for name, entry in plan.entries.items()}
    assert set(plan.groups) == {"x0.5", "x0.5 no decay", "x1", "x1 no decay"}
    assert groups["encoder/layer_0/attention/query/kernel"] == "x0.5"
    assert groups["encoder/layer_0/mlp/norm/scale"] == "x0.5 no decay"
    assert groups["encoder/layer_1/attention/query/kernel"] == groups["head/classifier/kernel"] == "x1"
    assert groups["encoder/embeddings/word/embedding"] == "frozen"
    assert "encoder/embeddings/word/embedding" not in plan.trained


@pytest.mark.parametrize(
    ("method", "freeze", "top_layers", "expected"),
    [
        ("full", "", 2, 0),
        ("linear_probe", "", 2, 4),
        ("top_k", "", 1, 3),
        ("top_k", "", 2, 2),
        ("top_k", "", 3, 1),
        ("full", "embeddings", 2, 1),
        ("full", "embeddings,layer_0", 2, 2),
        ("full", "layer_0", 2, 0),  # the embeddings are trained, so the backward pass needs every stage
        ("full", "embeddings,layer_1", 2, 1),
        ("full", "embeddings,layer_0/attention", 2, 1),  # a layer that is only partly frozen does not count
        ("bitfit", "", 2, 1),  # these embeddings have no bias
        ("bitfit", "embeddings,layer_0,pooler", 2, 2),
        ("embeddings_frozen", "", 2, 1),
        ("llrd", "", 2, 0),
        ("gradual_unfreezing", "", 2, 0),  # every stage is trained in some phase
    ],
)
def test_stages_frozen_from_the_bottom(method, freeze, top_layers, expected):
    assert plan_of(method, freeze, top_layers).frozen_stages(STAGES) == expected


def test_only_biases_and_norm_scales_have_no_weight_decay():
    without_decay = {name for name, entry in plan_of().entries.items() if not entry.decay}
    endings = {"/".join(name.split("/")[-2:]) for name in without_decay}
    assert endings == {"query/bias", "norm/scale", "norm/bias", "pooler/bias", "classifier/bias"}
    assert len(without_decay) == 3 * 3 + 2
    assert all(entry.decay for entry in plan_of(no_decay={}).entries.values())


def test_a_no_decay_pattern_that_matches_nothing_is_an_error():
    with pytest.raises(InputError, match=r"no_decay\.norm.*'nrm'.*did you mean 'norm'"):
        plan_of(no_decay={"bias": "bias", "norm": "nrm"})
    assert plan_of(no_decay={"bias": "bias", "norm": ""}) == plan_of(no_decay={"bias": "bias"}) != plan_of()


def test_rows_add_up_to_all_parameters_and_put_the_frozen_last():
    rows = plan_of("top_k", top_layers=1).rows()
    assert sum(int(row[2]) for row in rows) == 17
    assert sum(int(row[3].replace(",", "")) for row in rows) == 154
    frozen = [row[0] == "frozen" for row in rows]
    assert frozen == sorted(frozen) and any(frozen) and not all(frozen)
    assert {row[1] for row in rows if row[0] == "frozen"} == {"the rest"}
    assert {row[4:] for row in rows if row[0] == "frozen"} == {("-", "-", "never")}
    assert ("x1 no decay", "top", "4", "16", "1", "no", "step 0") in rows


def test_render_ends_with_the_totals_and_has_a_line_for_each_row():
    plan = plan_of("linear_probe")
    lines = plan.render().splitlines()
    assert lines[0].split() == ["group", "rule", "leaves", "parameters", "multiplier", "decay", "opens"]
    assert len(lines) == 1 + len(plan.rows()) + 1
    assert lines[-1] == "trains 10 of 154 parameters (6.49%)"
    assert plan_of("full").render().splitlines()[-1] == "trains 154 of 154 parameters (100.00%)"


@pytest.mark.parametrize("method", sorted(methods.METHODS))
@pytest.mark.parametrize("freeze", ["head", "bias", "classifier/kernel", ".*"])
def test_freezing_a_head_parameter_is_an_error_that_names_the_rule(method, freeze):
    with pytest.raises(InputError, match="the head always trains") as error:
        runs.plan(method, freeze=freeze)
    assert repr(f"freeze {freeze}") in str(error.value) and "head/classifier/" in str(error.value)


def test_freezing_an_encoder_module_named_head_is_allowed():
    tree = params()
    tree["encoder"]["head"] = {"kernel": np.zeros(2)}
    rules = {"encoder head": ("encoder/head", FROZEN), "rest": (".*", Treatment())}
    assert not plans.make(tree, rules, {}).entries["encoder/head/kernel"].treatment.trained


def test_a_stage_with_a_trainable_delta_is_not_frozen():
    assert runs.plan("lora").frozen_stages(("embeddings", "layer_0", "layer_1")) == 1
    assert runs.plan("lora", freeze="delta").frozen_stages(("embeddings", "layer_0", "layer_1")) == 1, "a frozen delta acts, too"
    top = runs.plan("lora", lora__targets="layer_1/attention/query")
    assert top.frozen_stages(("embeddings", "layer_0", "layer_1")) == 2
    assert [name for name in top.trained if name.startswith("delta/")] == [
        f"delta/lora/layer_1/attention/query/{name}" for name in ("a", "b")
    ]


def test_each_phase_of_gradual_unfreezing_has_a_plan_with_fewer_frozen_stages():
    plan = plan_of("gradual_unfreezing")
    assert [phase.frozen_stages(STAGES) for phase in plan.phases] == [4, 3, 2, 1, 0]
    assert all(phase.entries.keys() == plan.entries.keys() and not phase.phases for phase in plan.phases)
    assert plan_of("full").phases == ()


def test_a_group_names_the_phase_from_which_its_parameters_are_trained_without_a_break():
    last = plan_of("chain_thaw").phases[-1].entries
    for name, entry in last.items():
        expected = {"head": 0, "layer_2": 4}.get(name.split("/")[0 if name.startswith("head") else 1], 5)
        assert entry.opens == expected, name
    assert last["encoder/layer_2/attention/query/kernel"].group == "x1 phase 5"
    assert last["encoder/layer_2/attention/query/bias"].group == "x1 no decay phase 5"
    assert last["head/classifier/kernel"].group == "x1"


def test_rows_name_the_phases_that_train_a_parameter():
    opens = {row[6] for row in plan_of("gradual_unfreezing").rows()}
    assert opens == {f"phase {i}" for i in range(1, 6)}
    thawed = plan_of("chain_thaw").rows()
    assert {row[6] for row in thawed} == {"phase 1", "phases 2, 6", "phases 3, 6", "phases 4, 6", "phase 5", "phase 6"}
    assert sum(int(row[2]) for row in thawed) == 17
    assert plan_of("chain_thaw").render().splitlines()[-1] == "trains 154 of 154 parameters (100.00%)"
    assert {row[6] for row in plan_of("gradual_unfreezing", "embeddings").rows()} == {"never", *(f"phase {i}" for i in range(1, 5))}
