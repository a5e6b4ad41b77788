"""Training hooks of `regularize.py`: each method against its equation in NumPy, and the parameters that it does not change."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.adapt import methods, regularize
from research.errors import InputError
from research.experiment import build as experiments
from research.params.tree import flatten, unflatten
from research.tasks import catalog
from research.train import trainers
from research.train.step import init_state, split_microbatches
from tests import runs

KEY = jax.random.key(0)
NAMES = {
    "encoder/layer_0/kernel": (40, 30),
    "encoder/layer_0/bias": (30,),
    "encoder/embeddings/word/embedding": (50, 8),
    "head/kernel": (30, 2),
}


def tree(seed):
    rng = np.random.default_rng(seed)
    return unflatten({name: rng.normal(size=shape).astype(np.float32) for name, shape in NAMES.items()})


def flat(params):
    return {name: np.asarray(leaf, np.float64) for name, leaf in flatten(params).items()}


def test_l2sp_is_the_penalty_of_the_paper_once_for_each_real_example():
    current, initial = tree(0), tree(1)
    batch = {"weights": jnp.asarray([[1.0, 0.0], [1.0, 1.0]]), "labels": jnp.zeros((2, 2), int)}
    model = SimpleNamespace(recipe=methods.recipe(("embeddings", "layer_0"), runs.config(method="ia3")), task=catalog.get("imdb"))

    def extra_loss(alpha, current):
        return float(regularize.L2SP(alpha, 0.05).extra_loss(model, current, {"anchor": initial}, batch, KEY, jnp.zeros((2, 2, 2))))

    value = extra_loss(0.3, current)
    w, w0 = flat(current), flat(initial)
    old = sum(((w[name] - w0[name]) ** 2).sum() for name in w if name.startswith("encoder/"))
    new = (w["head/kernel"] ** 2).sum()
    assert value == pytest.approx(3 * (0.15 * old + 0.025 * new), rel=1e-5)
    assert extra_loss(0.0, current) < 0.1 * value
    ones = {"layer_0": {"inputs": jnp.ones(4)}}  # at 1 these have no effect, so there is no penalty
    assert extra_loss(0.3, current | {"delta": {"ia3": ones}}) == value
    assert extra_loss(0.3, current | {"delta": {"other": ones}}) == pytest.approx(value + 3 * 0.025 * 4, rel=1e-5)


def test_mixout_takes_each_weight_or_its_pretrained_value_and_keeps_the_expectation():
    current, initial, p = tree(0), tree(1), 0.7
    effective = jax.jit(lambda key: regularize.Mixout(p).effective_params(current, {"anchor": initial}, key))
    mixed = flat(effective(KEY))
    w, w0 = flat(current), flat(initial)
    kernel = "encoder/layer_0/kernel"
    scaled = w0[kernel] + (w[kernel] - w0[kernel]) / (1 - p)
    taken = np.isclose(mixed[kernel], scaled, atol=1e-5)
    assert np.isclose(mixed[kernel], np.where(taken, scaled, w0[kernel]), atol=1e-5).all()
    assert abs(taken.mean() - (1 - p)) < 0.05
    mean = np.mean([flat(effective(jax.random.key(i)))[kernel] for i in range(400)], axis=0)
    assert abs(mean - w[kernel]).mean() < 0.12 < abs(w0[kernel] - w[kernel]).mean() / 2
    for name in NAMES.keys() - {kernel}:
        np.testing.assert_array_equal(mixed[name], w[name])


def test_two_kernels_of_one_shape_are_mixed_differently():
    current = {"encoder": {name: {"kernel": jnp.ones((30, 30))} for name in "ab"}}
    initial = jax.tree.map(jnp.zeros_like, current)
    mixed = regularize.Mixout(0.5).effective_params(current, {"anchor": initial}, KEY)["encoder"]
    assert 0.4 < (np.asarray(mixed["a"]["kernel"]) == np.asarray(mixed["b"]["kernel"])).mean() < 0.6


@pytest.mark.slow
def test_mixout_applies_in_training_only():
    experiment = experiments.build(runs.config(method="mixout", precision="float32"))
    moved = jax.tree.map(lambda x: x + 0.1, experiment.model.trainable)
    batch = next(experiment.dev.epoch(0))
    single_method = runs.build_model(runs.config(precision="float32"), experiment.model.task.classes)
    logits = [
        jax.jit(model.logits)(moved, device_constants, batch)
        for model, device_constants in ((experiment.model, experiment.model.device_constants), (single_method, {}))
    ]
    np.testing.assert_array_equal(*logits)
    hook, constants = experiment.model.recipe.hooks[0], experiment.model.device_constants
    mixed = jax.jit(lambda key: experiment.model.logits(hook.effective_params(moved, constants, key), {}, batch))
    assert min(np.abs(mixed(jax.random.key(i)) - other).max() for i, other in enumerate([logits[0], mixed(KEY)])) > 1e-3


def gradient(trainable, frozen, batch, key):
    return trainable, {"count": 1.0}


def test_child_tuning_f_scales_the_unmasked_gradient_and_draws_a_mask_for_each_key():
    g, child = tree(0), regularize.ChildTuning("F", 0.3, 1)
    masked = jax.jit(lambda key: child.wrap_grad(gradient)(g, {}, None, key)[0])
    passed, unmasked = flat(masked(KEY)), flat(g)
    for name in NAMES:
        nonzero = passed[name] != 0
        np.testing.assert_allclose(passed[name][nonzero], unmasked[name][nonzero] / (1.0 if name.startswith("head") else 0.3), rtol=1e-5)
    assert (passed["head/kernel"] != 0).all()
    assert abs((passed["encoder/layer_0/kernel"] != 0).mean() - 0.3) < 0.05
    other = flat(masked(jax.random.key(1)))["encoder/layer_0/kernel"]
    assert (passed["encoder/layer_0/kernel"] != other).mean() > 0.3
    mean = np.mean([flat(masked(jax.random.key(i)))["encoder/layer_0/bias"] for i in range(600)], axis=0)
    np.testing.assert_allclose(mean, unmasked["encoder/layer_0/bias"], atol=0.35)


def test_child_tuning_d_takes_the_largest_squared_gradients_of_the_first_batches():
    gradients = [tree(i) for i in range(5)]
    mask = flatten(regularize.ChildTuning("D", 0.2, 3).calibrate(lambda: iter(gradients)))
    squares = {name: sum(flat(g)[name] ** 2 for g in gradients[:3]) for name in NAMES if name.startswith("encoder/")}
    values = np.concatenate([x.ravel() for x in squares.values()])
    threshold = np.sort(values)[-round(0.2 * values.size)]
    assert mask.keys() == squares.keys()
    for name, x in squares.items():
        assert (mask[name] == (x >= threshold * (1 - 1e-6))).mean() > 0.999, name
    g = tree(9)
    masked = flat(regularize.ChildTuning("D", 0.2, 3).wrap_grad(gradient)(g, {"child_tuning": unflatten(mask)}, None, KEY)[0])
    for name, x in flat(g).items():
        np.testing.assert_array_equal(masked[name], np.where(mask[name], x, 0.0) if name in mask else x)
    assert regularize.ChildTuning("F", 0.2, 3).calibrate(lambda: iter(())) == {}


@pytest.mark.devices
@pytest.mark.slow
def test_child_tuning_d_has_the_same_mask_on_any_devices_and_moves_nothing_else():
    options = {"method": "child_tuning", "child_tuning__kind": "D", "child_tuning__batches": 2, "precision": "float32"}
    options |= {"weight_decay": 0.0, "learning_rate": 0.01}
    experiment, rebuilt = (experiments.build(runs.config(**options)) for _ in range(2))
    mask = flatten(experiment.model.device_constants["child_tuning"])
    for name, x in flatten(rebuilt.model.device_constants["child_tuning"]).items():
        np.testing.assert_array_equal(x, mask[name])
    several = flatten(experiments.build(runs.config(parallel="pmap", accumulate=1, **options)).model.statistics["child_tuning"])
    assert np.mean([(several[name] == x).mean() for name, x in mask.items()]) > 0.999
    taken = sum(x.sum() for x in mask.values()) / sum(x.size for x in mask.values())
    assert taken == pytest.approx(0.3, abs=1e-3)
    before, counts = flatten(jax.tree.map(np.array, experiment.model.trainable)), 0
    state, step, stream = (
        init_state(experiment.model.trainable, experiment.tx),
        trainers.train_program(experiment),
        experiment.train.stream(),
    )
    for _ in range(2):
        batch = split_microbatches(next(stream), 1, experiment.layout)
        state, _ = step(state, experiment.model.device_constants, batch, experiment.dropout_key, experiment.scalars(int(state.step)))
    for name, x in flatten(state.trainable).items():
        moved = np.asarray(x) != before[name]
        assert not moved[~mask[name]].any() if name in mask else moved.any(), name
        counts += moved.sum() if name in mask else 0
    assert counts > 0.9 * sum(x.sum() for x in mask.values())


def test_noisytune_adds_uniform_noise_in_proportion_to_each_matrix():
    params = tree(0)
    noisy, pretrained = flat(regularize.NoisyTune(0.15).init_params(params, {}, KEY)), flat(params)
    for name, shape in NAMES.items():
        noise = noisy[name] - pretrained[name]
        if len(shape) < 2 or name.startswith("head/"):
            assert not noise.any(), name
        else:
            width = 0.15 * pretrained[name].std()
            assert abs(noise).max() <= width / 2 * (1 + 1e-4)
            assert noise.std() == pytest.approx(width / 12**0.5, rel=0.1)
    first, second = (regularize.NoisyTune(0.15).init_params({"encoder": {n: jnp.eye(9)}}, {}, KEY)["encoder"][n] for n in "ab")
    assert (np.asarray(first) != np.asarray(second)).mean() > 0.9


@pytest.mark.slow
def test_reinit_top_begins_with_the_random_values_of_its_layers_and_the_pooler():
    reinit, loaded = (flatten(runs.build_model(runs.config(method=m), ("a", "b")).trainable) for m in ("reinit_top", "full"))
    random = flatten(runs.build_model(runs.config(weights__source="scratch"), ("a", "b")).trainable)
    top = max(name.split("/")[1] for name in loaded if name.startswith("encoder/layer_"))
    for name, x in reinit.items():
        new = name.startswith((f"encoder/{top}/", "encoder/pooler/"))
        np.testing.assert_array_equal(x, (random if new else loaded)[name])
    assert not np.array_equal(reinit[f"encoder/{top}/mlp/up/kernel"], loaded[f"encoder/{top}/mlp/up/kernel"])


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("mixout", {"mixout_p": 1.0}, ["mixout_p=1", "less than 1"]),
        ("mixout", {"mixout_p": -0.1}, ["mixout_p=-0.1", "at least 0"]),
        ("l2sp", {"l2sp__alpha": -1.0}, ["l2sp.alpha=-1", "at least 0"]),
        ("l2sp", {"l2sp__beta": float("nan")}, ["l2sp.beta=nan"]),
        ("child_tuning", {"child_tuning__kind": "E"}, ["child_tuning.kind 'E'", "D, F"]),
        ("child_tuning", {"child_tuning__p": 0.0}, ["child_tuning.p=0", "over 0"]),
        ("child_tuning", {"child_tuning__batches": 0}, ["child_tuning.batches=0"]),
        ("noisytune", {"noisytune_lambda": -1.0}, ["noisytune_lambda=-1"]),
        ("reinit_top", {"reinit_layers": 99}, ["reinit_layers=99", "layers"]),
        ("reinit_top", {"reinit_layers": 0}, ["reinit_layers=0"]),
        ("rdrop", {"rdrop_alpha": -1.0}, ["rdrop_alpha=-1"]),
        ("rdrop", {"dropout": 0.0}, ["dropout=0", "rdrop"]),
        ("smart", {"smart__steps": 0}, ["smart.steps=0", "at least 1"]),
        ("smart", {"smart__epsilon": 0.0}, ["smart.epsilon=0"]),
        ("freelb", {"freelb__steps": 0}, ["freelb.steps=0", "at least 1"]),
        ("freelb", {"freelb__norm": -1.0}, ["freelb.norm=-1"]),
        ("sam", {"sam_rho": 0.0}, ["sam_rho=0", "over 0"]),
        ("ema", {"ema_decay": 1.0}, ["ema_decay=1", "less than 1"]),
        ("swa", {"swa_percent": 0.0}, ["swa_percent=0", "over 0"]),
        ("bitfit+mixout", {}, ["bitfit+mixout", "mixout", "kernel"]),
        ("linear_probe+l2sp", {}, ["l2sp", "none of them trains"]),
        ("linear_probe+child_tuning", {}, ["child_tuning", "none of them trains"]),
        ("bitfit+reinit_top", {}, ["reinit_top", "none of them trains"]),
        ("ema+swa", {}, ["ema", "swa", "give one"]),
        ("l2sp+mixout", {}, ["l2sp and mixout both tie parameters to their initial values", "give one"]),
        ("reinit_top+l2sp", {}, ["l2sp ties parameters to their pretrained values, but reinit_top changes these"]),
        ("mixout+noisytune", {}, ["mixout ties parameters to their pretrained values, but noisytune changes these"]),
        ("rdrop+freelb", {}, ["freelb perturbs the inputs of a pass, and rdrop compares passes", "give one"]),
        ("freelb+smart", {}, ["freelb perturbs the inputs of a pass, and smart compares passes"]),
        ("reinit_top+top_k", {"reinit_layers": 2, "top_layers": 1}, ["reinit_top reinitialises encoder/layer_0/", "does not train"]),
        ("reinit_top", {"freeze": "layer_1/attention"}, ["reinit_top reinitialises encoder/layer_1/attention", "does not train"]),
    ],
)
def test_an_invalid_option_is_refused_in_one_line_that_names_it(method, changes, words):
    with pytest.raises(InputError) as error:
        runs.plan(method, **changes)
    line = str(error.value)
    assert "\n" not in line and all(word in line for word in words), line
