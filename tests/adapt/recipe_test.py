"""Methods joined by `+`: the parameters that train, and refusals in one line."""

import re

import pytest

from research.adapt import methods
from research.config import resolve
from research.errors import InputError
from research.experiment import build as experiments
from tests import runs

QUERY_VALUE = {f"encoder/layer_{i}/attention/{part}" for i in (0, 1) for part in ("query", "value")}


def trained(method, **changes):
    return {name for name in runs.plan(method, **changes).trained if not name.startswith("head/")}


def refusal(method, build=False, **changes):
    """Return the message, of one line, with which a method is refused."""
    with pytest.raises(InputError) as caught:
        if build:
            experiments.build(runs.config(method=method, **changes))
        else:
            runs.plan(method, **changes)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_lora_and_bitfit_train_the_small_matrices_and_the_biases():
    deltas = {f"delta/lora/{path.removeprefix('encoder/')}/{name}" for path in QUERY_VALUE for name in ("a", "b")}
    assert trained("lora") == deltas
    assert trained("lora+bitfit") == trained("bitfit+lora") == deltas | trained("bitfit")
    assert not any(name.endswith("/kernel") for name in trained("lora+bitfit"))


def test_bitfit_and_layernorm_train_biases_and_norms():
    both = trained("bitfit+layernorm")
    assert both == trained("bitfit") | trained("layernorm")
    assert both - trained("bitfit") == {name for name in both if name.endswith("norm/scale")} != set()


def test_top_k_and_llrd_train_the_top_layers_at_falling_rates():
    plan = runs.plan("top_k+llrd", top_layers=2, llrd_decay=0.5)
    assert set(plan.trained) == set(runs.plan("top_k", top_layers=2).trained)
    rates = {name: entry.treatment.multiplier for name, entry in plan.entries.items()}
    assert {rates[name] for name in plan.trained if "layer_0" in name} == {0.5}
    assert {rates[name] for name in plan.trained if "layer_0" not in name} == {1.0}
    assert {group.removesuffix(" no decay") for group in plan.groups} == {"x1", "x0.5"}
    assert plan.entries["encoder/embeddings/word/embedding"].group == "frozen"


@pytest.mark.parametrize(
    ("method", "no_decay_pattern"),
    [("lora", set()), ("ia3", {"inputs", "outputs"}), ("dora", {"magnitude"}), ("vera", {"d"})],
)
def test_weight_decay_skips_the_delta_parameters_whose_neutral_value_is_not_zero(method, no_decay_pattern):
    entries = runs.plan(method, vera__rank=16).entries
    deltas = {name: entry for name, entry in entries.items() if name.startswith("delta/") and entry.treatment.trained}
    assert {name.rpartition("/")[2] for name, entry in deltas.items() if not entry.decay} == no_decay_pattern
    assert any(entry.decay for entry in deltas.values()) == (method != "ia3")


def test_rates_by_depth_apply_to_deltas_too():
    plan = runs.plan("lora+llrd", llrd_decay=0.5)
    rates = {name: plan.entries[name].treatment.multiplier for name in plan.trained}
    assert {rates[name] for name in rates if "layer_0" in name} == {0.5}
    assert {rates[name] for name in rates if "layer_0" not in name} == {1.0}


def test_gradual_unfreezing_and_discriminative_unfreeze_stages_at_falling_rates():
    plan = runs.plan("gradual_unfreezing+discriminative")
    alone = runs.plan("gradual_unfreezing")
    assert [set(phase.trained) for phase in plan.phases] == [set(phase.trained) for phase in alone.phases]
    groups = (("x1", ""), ("x1", " phase 2"), (f"x{1 / 2.6:g}", " phase 3"), (f"x{2.6**-2:g}", " phase 4"))
    assert set(plan.phases[-1].groups) == {f"{rate}{decay}{phase}" for rate, phase in groups for decay in ("", " no decay")}
    assert set(plan.phases[0].groups) == {"x1", "x1 no decay"}


def test_a_method_without_phases_trains_in_all_phases_of_another():
    biases, alone = trained("bitfit"), runs.plan("gradual_unfreezing").phases
    phases = runs.plan("gradual_unfreezing+bitfit").phases
    assert [set(phase.trained) for phase in phases] == [set(phase.trained) | biases for phase in alone]
    assert re.search("gradual_unfreezing trains encoder/layer_1/.*, lora keeps it frozen", refusal("gradual_unfreezing+lora"))


def test_full_joined_with_a_method_of_rates_equals_that_method():
    one, other = runs.plan("full+llrd"), runs.plan("llrd")
    assert {n: (entry.treatment, entry.decay) for n, entry in one.entries.items()} == {
        n: (entry.treatment, entry.decay) for n, entry in other.entries.items()
    }


@pytest.mark.parametrize(
    ("method", "changes", "reason"),
    [
        ("top_k+linear_probe", {}, r"top_k trains encoder/.*, linear_probe keeps it frozen; they cannot be joined"),
        ("lora+full", {}, r"full trains encoder/layer_0/attention/query/kernel, lora keeps it frozen; they cannot be joined"),
        ("embeddings_frozen+full", {}, r"full trains encoder/embeddings/.*, embeddings_frozen keeps it frozen"),
        ("full+bitfit", {}, r"method=full\+bitfit: bitfit adds nothing to full; leave it out"),
        ("bitfit+full", {}, r"bitfit adds nothing to full; leave it out"),
        ("lora+linear_probe", {}, r"linear_probe adds nothing to lora; leave it out"),
        ("gradual_unfreezing+chain_thaw", {}, r"gradual_unfreezing and chain_thaw both have phases; give one of them"),
        ("full+gradual_unfreezing", {}, r"gradual_unfreezing adds nothing to full; leave it out"),
        ("chain_thaw+full", {}, r"chain_thaw adds nothing to full; leave it out"),
        ("llrd+discriminative", {}, r"llrd and discriminative both set how learning rates fall with depth; give one of them"),
        ("llrd+linear_probe", {}, r"llrd sets learning rates by depth, but nothing of the encoder trains"),
        ("lroa", {}, r"method 'lroa' is not known; did you mean 'lora'"),
        ("lora+bitfitt", {}, r"method 'bitfitt' is not known; did you mean 'bitfit'"),
        ("lora+", {}, r"method '' is not known; known: "),
        ("lora+bitfit+lora", {}, r"method=lora\+bitfit\+lora: lora stands there twice"),
        ("lora", {"lora__targets": "attention/querry"}, r"lora\.targets.*'attention/querry' matches no .*did you mean 'attention/query'"),
        ("lora", {"lora__targets": " , "}, r"lora\.targets is empty; give patterns"),
        ("lora", {"lora__rank": 33}, r"lora\.rank=33: layer_0/attention/query is 32 x 32; use 1 to 32"),
        ("lora", {"lora__rank": 0}, r"lora\.rank=0: .* use 1 to 32"),
        ("lora", {"lora__targets": "pooler", "lora__dropout": 0.1}, r"lora\.dropout=0\.1: .*tokens, but the pooler reads examples"),
        ("gradual_unfreezing", {"unfreeze_layers": 0}, r"unfreeze_layers=0: each phase must unfreeze at least one stage"),
        ("discriminative", {"discriminative_factor": 0.0}, r"discriminative_factor=0 must be over 0"),
        ("full", {"freeze": "embedings"}, r"rule 'freeze embedings': .*did you mean 'embeddings'"),
        ("lora+bitfit", {"freeze": "head"}, r"rule 'freeze head' freezes head/.*, but the head always trains"),
    ],
)  # fmt: skip
def test_methods_that_contradict_each_other_are_refused_with_the_reason(method, changes, reason):
    assert re.search(reason, line := refusal(method, **changes)), line


@pytest.mark.parametrize(
    ("method", "changes", "reason"),
    [
        ("llrd", {"llrd_decay": 0.0}, r"rule 'encoder': learning-rate multiplier 0 on encoder/.*; freeze it instead"),
        ("llrd", {"llrd_decay": -0.5}, r"learning-rate multiplier -0\.5 on encoder/.*; freeze it instead"),
        (
            "gradual_unfreezing",
            {"total_steps": 10, "phase_percent": 40.0},
            r"method=gradual_unfreezing: phase 4 of 4 would begin at step 12, but the training has 10; shorten the phases with "
            r"--config\.phase_percent=25, or open more at a time",
        ),
        ("chain_thaw", {"total_steps": 10, "phase_steps": 5}, r"phase 3 of 5 would begin at step 10, but the training has 10"),
        ("gradual_unfreezing", {"smoke": False}, r"phase 3 of 4 would begin at step 2, but the training has 2"),
    ],
)  # fmt: skip
def test_phases_that_do_not_fit_are_refused_before_training(method, changes, reason):
    assert re.search(reason, line := refusal(method, build=True, **changes)), line


def test_the_suggestion_of_a_refusal_works():
    experiment = experiments.build(runs.config(method="gradual_unfreezing", total_steps=10, phase_percent=25.0))
    assert [(phase.start, phase.stop) for phase in experiment.phases] == [(0, 2), (2, 4), (4, 6), (6, 10)]
    experiment = experiments.build(runs.config(method="gradual_unfreezing", unfreeze_layers=3))
    assert [(phase.start, phase.stop) for phase in experiment.phases] == [(0, 1), (1, 2)]


def test_all_method_names_can_be_joined_by_plus():
    assert all(re.fullmatch(r"[a-z0-9]\w*", name) for name in methods.METHODS)
    assert resolve.method_names("+".join(methods.METHODS), methods.METHODS) == list(methods.METHODS)
