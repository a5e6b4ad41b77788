"""What holds the parameters back: each method's equation, by NumPy, and what it leaves alone."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.adapt import methods, regularize
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import initialize
from research.params.tree import flatten, unflatten
from research.train import loop
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


def test_l2sp_is_the_papers_penalty_once_for_each_example_that_is_there():
    now, began = tree(0), tree(1)
    batch = {"weights": jnp.asarray([[1.0, 0.0], [1.0, 1.0]])}
    model = SimpleNamespace(recipe=methods.recipe(("embeddings", "layer_0"), runs.config(method="ia3")))

    def penalty(alpha, now):
        return float(regularize.L2SP(alpha, 0.05).extra_loss(model, now, {"anchor": began}, batch, KEY, None))

    found = penalty(0.3, now)
    w, w0 = flat(now), flat(began)
    old = sum(((w[name] - w0[name]) ** 2).sum() for name in w if name.startswith("encoder/"))
    new = (w["head/kernel"] ** 2).sum()
    assert found == pytest.approx(3 * (0.15 * old + 0.025 * new), rel=1e-5)
    assert penalty(0.0, now) < 0.1 * found
    ones = {"layer_0": {"inputs": jnp.ones(4)}}  # where these change nothing, they are not pulled away from
    assert penalty(0.3, now | {"delta": {"ia3": ones}}) == found
    assert penalty(0.3, now | {"delta": {"other": ones}}) == pytest.approx(found + 3 * 0.025 * 4, rel=1e-5)


def test_mixout_takes_each_weight_of_a_kernel_or_its_pretrained_value_and_keeps_the_expectation():
    now, began, p = tree(0), tree(1), 0.7
    view = jax.jit(lambda key: regularize.Mixout(p).effective_params(now, {"anchor": began}, key))
    seen = flat(view(KEY))
    w, w0 = flat(now), flat(began)
    kernel = "encoder/layer_0/kernel"
    far = w0[kernel] + (w[kernel] - w0[kernel]) / (1 - p)
    taken = np.isclose(seen[kernel], far, atol=1e-5)
    assert np.isclose(seen[kernel], np.where(taken, far, w0[kernel]), atol=1e-5).all()
    assert abs(taken.mean() - (1 - p)) < 0.05
    mean = np.mean([flat(view(jax.random.key(i)))[kernel] for i in range(400)], axis=0)
    assert abs(mean - w[kernel]).mean() < 0.12 < abs(w0[kernel] - w[kernel]).mean() / 2
    for name in NAMES.keys() - {kernel}:
        np.testing.assert_array_equal(seen[name], w[name])


def test_two_kernels_of_one_shape_are_mixed_differently():
    now = {"encoder": {name: {"kernel": jnp.ones((30, 30))} for name in "ab"}}
    began = jax.tree.map(jnp.zeros_like, now)
    seen = regularize.Mixout(0.5).effective_params(now, {"anchor": began}, KEY)["encoder"]
    assert 0.4 < (np.asarray(seen["a"]["kernel"]) == np.asarray(seen["b"]["kernel"])).mean() < 0.6


@pytest.mark.slow
def test_mixout_is_in_training_alone():
    e = experiments.build(runs.config(method="mixout", precision="float32"))
    moved = jax.tree.map(lambda x: x + 0.1, e.model.trainable)
    batch = next(e.dev.epoch(0))
    plain = initialize.build_model(runs.config(precision="float32"), e.model.labels)
    both = [
        jax.jit(model.logits)(moved, device_constants, batch)
        for model, device_constants in ((e.model, e.model.device_constants), (plain, {}))
    ]
    np.testing.assert_array_equal(*both)
    undropped = lambda key: e.model.logits(e.model.recipe.hooks[0].effective_params(moved, e.model.device_constants, key), {}, batch)  # noqa: E731
    mixed = jax.jit(undropped)
    assert min(np.abs(mixed(jax.random.key(i)) - other).max() for i, other in enumerate([both[0], mixed(KEY)])) > 1e-3


def gradient(trainable, frozen, batch, key):
    return trainable, {"count": 1.0}


def test_child_tuning_f_scales_what_it_lets_through_and_draws_anew_by_the_key():
    g, child = tree(0), regularize.ChildTuning("F", 0.3, 1)
    masked = jax.jit(lambda key: child.wrap_grad(gradient)(g, {}, None, key)[0])
    found, was = flat(masked(KEY)), flat(g)
    for name in NAMES:
        through = found[name] != 0
        np.testing.assert_allclose(found[name][through], was[name][through] / (1.0 if name.startswith("head") else 0.3), rtol=1e-5)
    assert (found["head/kernel"] != 0).all()
    assert abs((found["encoder/layer_0/kernel"] != 0).mean() - 0.3) < 0.05
    other = flat(masked(jax.random.key(1)))["encoder/layer_0/kernel"]
    assert (found["encoder/layer_0/kernel"] != other).mean() > 0.3
    mean = np.mean([flat(masked(jax.random.key(i)))["encoder/layer_0/bias"] for i in range(600)], axis=0)
    np.testing.assert_allclose(mean, was["encoder/layer_0/bias"], atol=0.35)


def test_child_tuning_d_takes_the_largest_squared_gradients_of_the_first_batches():
    given = [tree(i) for i in range(5)]
    mask = flatten(regularize.ChildTuning("D", 0.2, 3).calibrate(iter(given)))
    squares = {name: sum(flat(g)[name] ** 2 for g in given[:3]) for name in NAMES if name.startswith("encoder/")}
    every = np.concatenate([x.ravel() for x in squares.values()])
    least = np.sort(every)[-round(0.2 * every.size)]
    assert mask.keys() == squares.keys()
    for name, x in squares.items():
        assert (mask[name] == (x >= least * (1 - 1e-6))).mean() > 0.999, name
    g = tree(9)
    found = flat(regularize.ChildTuning("D", 0.2, 3).wrap_grad(gradient)(g, {"child_tuning": unflatten(mask)}, None, KEY)[0])
    for name, x in flat(g).items():
        np.testing.assert_array_equal(found[name], np.where(mask[name], x, 0.0) if name in mask else x)
    assert regularize.ChildTuning("F", 0.2, 3).calibrate(iter(())) == {}


@pytest.mark.devices
@pytest.mark.slow
def test_child_tuning_d_finds_the_same_again_on_any_devices_and_moves_nothing_else():
    options = {"method": "child_tuning", "child_tuning__kind": "D", "child_tuning__batches": 2, "precision": "float32"}
    options |= {"weight_decay": 0.0, "learning_rate": 0.01}
    e, again = (experiments.build(runs.config(**options)) for _ in range(2))
    mask = flatten(e.model.device_constants["child_tuning"])
    for name, x in flatten(again.model.device_constants["child_tuning"]).items():
        np.testing.assert_array_equal(x, mask[name])
    several = flatten(experiments.build(runs.config(parallel="pmap", accumulate=1, **options)).model.found["child_tuning"])
    assert np.mean([(several[name] == x).mean() for name, x in mask.items()]) > 0.999
    taken = sum(x.sum() for x in mask.values()) / sum(x.size for x in mask.values())
    assert taken == pytest.approx(0.3, abs=1e-3)
    before, counts = flatten(jax.tree.map(np.array, e.model.trainable)), 0
    state, step, stream = init_state(e.model.trainable, e.tx), loop.train_program(e), e.train.stream()
    for _ in range(2):
        state, _ = step(state, e.model.device_constants, split_microbatches(next(stream), 1, e.layout), e.dropout_key)
    for name, x in flatten(state.trainable).items():
        moved = np.asarray(x) != before[name]
        assert not moved[~mask[name]].any() if name in mask else moved.any(), name
        counts += moved.sum() if name in mask else 0
    assert counts > 0.9 * sum(x.sum() for x in mask.values())


def test_noisytune_adds_uniform_noise_in_proportion_to_each_matrix():
    params = tree(0)
    found, was = flat(regularize.NoisyTune(0.15).init_params(params, {}, KEY)), flat(params)
    for name, shape in NAMES.items():
        noise = found[name] - was[name]
        if len(shape) < 2 or name.startswith("head/"):
            assert not noise.any(), name
        else:
            width = 0.15 * was[name].std()
            assert abs(noise).max() <= width / 2 * (1 + 1e-4)
            assert noise.std() == pytest.approx(width / 12**0.5, rel=0.1)
    first, second = (regularize.NoisyTune(0.15).init_params({"encoder": {n: jnp.eye(9)}}, {}, KEY)["encoder"][n] for n in "ab")
    assert (np.asarray(first) != np.asarray(second)).mean() > 0.9


@pytest.mark.slow
def test_reinit_top_begins_with_the_random_values_of_its_layers_and_the_pooler():
    reinit, read = (flatten(initialize.build_model(runs.config(method=m), ("a", "b")).trainable) for m in ("reinit_top", "full"))
    random = flatten(initialize.build_model(runs.config(weights__source="scratch"), ("a", "b")).trainable)
    top = max(name.split("/")[1] for name in read if name.startswith("encoder/layer_"))
    for name, x in reinit.items():
        new = name.startswith((f"encoder/{top}/", "encoder/pooler/"))
        np.testing.assert_array_equal(x, (random if new else read)[name])
    assert not np.array_equal(reinit[f"encoder/{top}/mlp/up/kernel"], read[f"encoder/{top}/mlp/up/kernel"])


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
        ("linear_probe+child_tuning", {}, ["child_tuning", "nothing of that trains"]),
        ("bitfit+reinit_top", {}, ["reinit_top", "nothing of that trains"]),
        ("ema+swa", {}, ["ema", "swa", "give one"]),
        ("l2sp+mixout", {}, ["l2sp and mixout both hold parameters where they began", "give one"]),
        ("reinit_top+l2sp", {}, ["l2sp holds what was pretrained, but reinit_top changes it"]),
        ("mixout+noisytune", {}, ["mixout holds what was pretrained, but noisytune changes it"]),
        ("rdrop+freelb", {}, ["freelb moves the inputs of a pass, and rdrop compares passes", "give one"]),
        ("freelb+smart", {}, ["freelb moves the inputs of a pass, and smart compares passes"]),
        ("reinit_top+top_k", {"reinit_layers": 2, "top_layers": 1}, ["reinit_top makes encoder/layer_0/", "does not train"]),
        ("reinit_top", {"freeze": "layer_1/attention"}, ["reinit_top makes encoder/layer_1/attention", "does not train"]),
    ],
)
def test_a_bad_option_is_one_line_that_names_it(method, changes, words):
    with pytest.raises(InputError) as error:
        runs.plan(method, **changes)
    line = str(error.value)
    assert "\n" not in line and all(word in line for word in words), line
