"""Methods on every model family: a method trains the same kinds of parameters everywhere, also where layers share parameters."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.adapt import methods, summary
from research.adapt.targets import dropped
from research.errors import InputError
from research.experiment import initialize
from research.params.tree import flatten, merge
from research.train import optimizer
from research.train.step import init_state, train_step
from tests import runs
from tests.adapt import small
from tests.weights import families

OPTIONS = {"top_layers": 1, "lora__dropout": 0.1, "houlsby__size": 8, "parallel_adapter__size": 8}
OPTIONS |= {"prefix__tokens": 4, "soft_prompt__tokens": 4}
DELTAS = ("lora", "ia3", "houlsby", "parallel_adapter", "prefix", "soft_prompt")
LAST = {name: "layer_2" for name in families.CONFIGS} | {"albert": "layer_0", "albert-groups": "layer_1"}
LAST |= {"modernbert": "layer_3", "modernbert-biased": "layer_3"}

# Method -> (parameter name, name of the last layer) -> whether the parameter of the encoder or of a delta trains.
TRAINS = {
    "full": lambda name, last: True,
    "linear_probe": lambda name, last: False,
    "top_k": lambda name, last: name.startswith((f"encoder/{last}/", "encoder/pooler/")),
    "bitfit": lambda name, last: name.endswith("/bias"),
    "layernorm": lambda name, last: name.split("/")[-2].endswith("norm"),
    "gradual_unfreezing": lambda name, last: True,
    "llrd": lambda name, last: True,
    **dict.fromkeys(DELTAS, lambda name, last: name.startswith("delta/")),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Return a function from a family's name to a folder with a model of it and the tokenizer of the tiny model."""

    @functools.cache
    def of(name: str) -> str:
        folder = families.save(tmp_path_factory.mktemp(name), name, families.classifier(name))
        families.save_tokenizer(folder)
        return str(folder)

    return of


def built(source, name: str, method: str, **options):
    """Return the family's model with a method. All methods start from the model of `linear_probe`, which has no options."""
    with jax.disable_jit():  # the families share compiled operations, but no whole programs
        return small.model(method, weights__source=source(name), **({} if method == "linear_probe" else OPTIONS | options))


def trained(method: str, name: str, parameters) -> set[str]:
    """Return the parameters that train in any phase, the head included."""
    return {n for n in parameters if n.startswith("head/") or TRAINS[method](n, LAST[name])}


def has_nothing(method: str, name: str) -> bool:
    return (method, name) == ("bitfit", "modernbert")  # ModernBERT has no biases


@pytest.mark.parametrize("name", families.CONFIGS)
def test_a_method_trains_the_named_parameters_in_every_family(source, name):
    """Check the plans by shapes alone: no delta is initialised."""
    model = built(source, name, "linear_probe")
    for method in TRAINS:
        config = runs.config(method=method, weights__source=source(name), **OPTIONS)
        recipe = methods.recipe(model.encoder.stages, config)
        params = merge(model.trainable, model.frozen)
        shapes = jax.eval_shape(functools.partial(initialize._with_deltas, recipe), params, initialize.named_keys(0))
        if has_nothing(method, name):
            with pytest.raises(InputError, match="'biases': pattern 'encoder/.[*]/bias' matches no parameter"):
                recipe.plan(shapes, config.freeze, config.no_decay)
            continue
        plan = recipe.plan(shapes, config.freeze, config.no_decay)
        assert set(plan.trained) == trained(method, name, plan.entries), method
        assert plan.entries.keys() == flatten(shapes).keys()
        if method in DELTAS:
            assert any(n.startswith(f"delta/{method}/") for n in plan.trained)
            assert plan.frozen_stages(model.encoder.stages) == (0 if method == "soft_prompt" else 1), method


def step(model, plan, values):
    """Return all parameters after one update by `plan`, without compiling. `values` has all that train in any phase."""
    now = model.at(plan, values)
    tx = optimizer.make(plan, model.config, {"learning_rate": 0.01, "weight_decay": model.config.weight_decay})
    batch = jax.tree.map(lambda x: x[None], small.batch_of(model))
    key = jax.random.key_data(jax.random.key(0))
    state, stats = train_step(init_state(now.trainable, tx), now.frozen, batch, key, gradient=now.gradient, tx=tx)
    assert np.isfinite(stats["grad_norm"]) and stats["grad_norm"] > 0
    return flatten(merge(state.trainable, now.frozen))


# Families that differ from BERT: shared layers, other layer norms, relative positions, causal attention.
SPECIAL = ("albert-groups", "modernbert-biased", "deberta-v3", "gpt2")
PAIRS = [(name, method) for name in families.CONFIGS for method in TRAINS if not has_nothing(method, name)]
USUAL = {(name, method) for name in SPECIAL for method in ("top_k", "lora")} | {("distilbert", "prefix")}


@pytest.mark.parametrize(("name", "method"), [p if p in USUAL else pytest.param(*p, marks=pytest.mark.slow) for p in PAIRS])
def test_a_step_changes_only_the_parameters_that_the_method_trains(source, name, method):
    model = built(source, name, method)
    values, moved = small.moved(model, by=0.1), set()
    before = flatten(merge(values, model.frozen))
    for plan in model.plan.phases or (model.plan,):
        after = step(model, plan, values)
        now = {n for n, leaf in after.items() if not np.array_equal(leaf, before[n])}
        assert now == set(plan.trained)
        moved |= now
    assert moved == trained(method, name, before)


def stages_by_phase(plan) -> list[set[str]]:
    """Return the encoder stages that train in each phase."""
    return [{n.split("/")[1] for n in phase.trained if n.startswith("encoder/")} for phase in plan.phases]


def test_layers_that_share_parameters_are_unfrozen_together(source):
    top, all_but_embeddings = {"layer_1", "pooler"}, {"layer_0", "layer_1", "pooler"}
    grouped = stages_by_phase(built(source, "albert-groups", "gradual_unfreezing").plan)
    assert grouped == [set(), top, all_but_embeddings, {"embeddings", *all_but_embeddings}]
    phases = {name: len(stages_by_phase(built(source, name, "gradual_unfreezing").plan)) for name in ("albert", "gpt2")}
    assert phases == {"albert": 3, "gpt2": 5}, "both have three layers"
    thawed = stages_by_phase(built(source, "albert-groups", "chain_thaw").plan)
    assert thawed[1:4] == [{"embeddings"}, {"layer_0"}, {"layer_1"}] and len(thawed) == 5


def test_rates_fall_once_for_layers_that_share_parameters(source):
    def rates(name):
        entries = built(source, name, "llrd", llrd_decay=0.5).plan.entries
        return {n.split("/")[1]: entry.treatment.multiplier for n, entry in entries.items() if n.startswith("encoder/")}

    assert rates("albert-groups") == {"embeddings": 0.25, "layer_0": 0.5, "layer_1": 1.0, "pooler": 1.0}
    assert rates("albert") == {"embeddings": 0.5, "layer_0": 1.0, "pooler": 1.0}
    assert rates("gpt2") == {"embeddings": 0.125, "layer_0": 0.25, "layer_1": 0.5, "layer_2": 1.0}


@pytest.mark.parametrize(("method", "option"), [("top_k", "top_layers"), ("reinit_top", "reinit_layers")])
def test_more_top_layers_than_distinct_layers_are_refused_in_one_line(source, method, option):
    for name, k, complaint in (
        ("albert", 2, "the encoder has 3 layers that share the parameters of 1; use 1 to 1"),
        ("albert-groups", 3, "the encoder has 4 layers that share the parameters of 2; use 1 to 2"),
        ("gpt2", 4, "the encoder has 3 layers; use 1 to 3"),
    ):
        with pytest.raises(InputError, match=f"{option}={k}: {complaint}") as caught:
            built(source, name, method, **{option: k})
        assert "\n" not in str(caught.value)
        built(source, name, method, **{option: k - 1})


def test_shared_layers_may_train_above_the_stage_that_is_read(source):
    built(source, "albert", "chosen_layer+lora", feature_layer=1, pooling="mean")
    with pytest.raises(InputError, match="layer_1/attention/query/a would train, but the head reads layer_0 and nothing above it"):
        built(source, "albert-groups", "chosen_layer+lora", feature_layer=2, pooling="mean")


def test_recomputing_activations_changes_no_gradient_where_layers_share_parameters(source):
    grads = []
    for remat in (False, True):
        model = built(source, "albert-groups", "lora", remat=remat)
        grads.append(flatten(model.gradient(small.moved(model), model.frozen, small.batch_of(model), jax.random.key(0))[0]))
    for name, grad in grads[0].items():
        np.testing.assert_allclose(grad, grads[1][name], atol=1e-5, rtol=1e-5, err_msg=name)
    model = built(source, "albert-groups", "lora")
    other = flatten(model.gradient(small.moved(model), model.frozen, small.batch_of(model), jax.random.key(1))[0])
    assert any(small.far(grad, other[name]) for name, grad in grads[0].items()), "another key gives another dropout mask"


def test_a_family_whose_classifiers_have_no_pooler_is_built_without_one(source):
    for name, there in {"bert": True, "albert": True, "roberta": False, "electra": False, "distilbert": False}.items():
        assert any("encoder/pooler/" in n for n in built(source, name, "full").plan.entries) == there


@pytest.mark.parametrize("name", SPECIAL)
def test_frozen_parameters_make_a_step_cheaper(source, name):
    model = {method: built(source, name, method) for method in ("full", "top_k", "linear_probe")}
    cost = {method: summary.cost(one, one.plan) for method, one in model.items()}
    assert 0 < cost["linear_probe"] < cost["top_k"] < cost["full"] == 1
    assert "predicted FLOPs of a step relative to full fine-tuning: 1.00" in summary.summary(model["full"])


def test_cached_states_of_frozen_stages_give_the_logits_of_the_full_pass(source):
    for name in SPECIAL:
        model = built(source, name, "top_k")
        batch, stop = small.batch_of(model), model.plan.frozen_stages(model.encoder.stages)
        full_pass = small.logits(model, model.trainable, batch)
        cached = dict(batch, hidden=model.below(model.frozen, batch, stop))
        assert stop > 1 and np.array_equal(small.logits(model, model.trainable, cached), full_pass)
        other = dict(batch, hidden=cached["hidden"][:, ::-1])
        assert small.far(small.logits(model, model.trainable, other), full_pass)


@pytest.mark.parametrize("method", ["lora", pytest.param("dora", marks=pytest.mark.slow)])
def test_dropout_of_relative_positions_does_not_depend_on_packing(source, method):
    model = built(source, "deberta-v3", method, **{f"{method}__dropout": 0.3, f"{method}__targets": "attention/query,attention/key"})
    trainable = small.moved(model)
    packed, padded = (small.batch_of(model, layout) for layout in ("packed", "padded"))
    assert packed["tokens"].shape[1] != padded["tokens"].shape[1]
    one, other = (small.logits(model, trainable, batch, jax.random.key(3)) for batch in (packed, padded))
    np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    assert small.far(one, small.logits(model, trainable, packed, jax.random.key(4)))


def test_the_dropout_mask_of_a_distance_does_not_depend_on_the_row_length():
    batch = {"segments": jnp.ones((2, 9)), "positions": jnp.zeros((2, 9), jnp.int32), "examples": jnp.zeros((2, 1), jnp.int32)}
    masked = {L: np.asarray(dropped(jnp.ones((1, 2 * L, 500)), 0.3, batch, jax.random.key(0), "q"))[0] for L in (9, 40)}
    assert np.array_equal(masked[9], masked[40][31:49])  # row m is the distance L - 1 - m
    assert not np.array_equal(masked[9], masked[40][30:48])
    assert abs((masked[40] == 0).mean() - 0.3) < 0.01
    assert len({row.tobytes() for row in masked[40]}) == 80, "each distance has a different mask"
    assert not np.array_equal(masked[9], dropped(jnp.ones((1, 18, 500)), 0.3, batch, jax.random.key(1), "q")[0])
