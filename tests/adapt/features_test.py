"""Feature-based methods in whole runs: the head reads the right states, cached or not, packed or not, and nothing else trains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import storage
from research.adapt import methods
from research.adapt.adapted_model import AdaptedModel
from research.config import fields
from research.data import pipeline
from research.data.batches import Batches
from research.data.examples import Examples
from research.errors import InputError
from research.experiment import build as experiments
from research.params.tree import flatten
from research.tasks.base import Column
from research.train import feature_cache, trainers
from research.train.step import init_state, split_microbatches
from tests import runs

READS = {"chosen_layer": (1,), "last4_concat": (1, 2), "scalar_mix": (0, 1, 2), "feature_bilstm": (2,), "feature_concat": (2,)}
SMALL = {"feature_bilstm__size": 8, "feature_concat__embedding": 8, "feature_concat__size": 8}
PROGRAMS = {}  # id of a model that `model_of` caches -> its compiled `logits`
EACH = pytest.mark.parametrize("method", READS)


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEARCH_CACHE", str(tmp_path))


def config(method: str, **changes):
    return runs.config(arg="smoke", method=method, precision="float32", **SMALL, **changes)


@functools.cache
def model_of(method: str, **changes) -> AdaptedModel:
    """Return a model of the method, with noise on the head: with the initial values, some of its parameters have no effect."""
    model = runs.build_model(config(method, **changes), ("a", "b"))
    random = np.random.RandomState(0)
    head = jax.tree.map(lambda leaf: leaf + jnp.asarray(random.normal(0, 0.3, leaf.shape), jnp.float32), model.trainable["head"])
    return model.at(model.plan, {**model.trainable, "head": head})


def batch_of(model: AdaptedModel, layout: str, change: bool = False):
    """Return one batch of 16 texts of 4 to 19 letters. With `change`, the sixth text has other letters."""
    texts = tuple(("abcdefghijklmnopqrs"[: 4 + i],) for i in range(16))
    tokens = pipeline.tokens(model, Examples(tuple(map(str, range(16))), texts, ()))
    if change:
        begin, end = tokens.offsets[5:7]
        tokens.ids[begin + 1 : end - 1] = np.arange(5, 5 + end - begin - 2)
    return next(Batches(tokens, {"labels": Column("example", np.arange(16, dtype=np.int32) % 2)}, 16, seed=0, layout=layout).epoch(0))


def by_example(model: AdaptedModel, batch, trainable=None) -> np.ndarray:
    program = PROGRAMS.setdefault(id(model), jax.jit(model.logits))
    logits = np.asarray(program(trainable or model.trainable, model.frozen, batch))
    return logits[batch["weights"] > 0][np.argsort(batch["examples"][batch["weights"] > 0])]


def stages_of(model: AdaptedModel, batch) -> list[np.ndarray]:
    return [np.asarray(x) for x in model.encoder.apply({"params": model.frozen["encoder"]}, batch).stages]


@pytest.mark.slow
@EACH
def test_only_the_head_trains_and_the_right_stages_are_read(method):
    model = model_of(method)
    assert all(name.startswith("head/") for name in model.plan.trained) and "encoder" not in model.trainable
    assert model.reads(3) == READS[method] and model.plan.frozen_stages(model.encoder.stages) == 3
    batch = batch_of(model, "packed")
    wanted = np.concatenate([stages_of(model, batch)[i] for i in READS[method]], axis=-1)
    np.testing.assert_allclose(jax.jit(model.below, static_argnums=2)(model.frozen, batch, 3), wanted, atol=1e-5)


@pytest.mark.slow
@EACH
def test_cached_states_give_the_same_losses_and_every_parameter_moves(method):
    all_losses = []
    for gigabytes in (4.0, 0.0):
        experiment = experiments.build(config(method, total_epochs=1.5, prefix_cache_gb=gigabytes))
        assert ("hidden" in next(experiment.train.epoch(0))) == ("hidden" in next(experiment.dev.epoch(0))) == (gigabytes > 0)
        before = {name: np.array(leaf) for name, leaf in flatten(experiment.model.trainable).items()}
        state, step, losses = init_state(experiment.model.trainable, experiment.tx), trainers.train_program(experiment), []
        for number, batch in zip(range(experiment.total_steps), experiment.train.stream(), strict=False):
            state, stats = step(
                state,
                experiment.model.frozen,
                split_microbatches(batch, 1, experiment.layout),
                experiment.dropout_key,
                experiment.scalars(int(state.step)),
            )
            losses.append(float(stats["loss"] / stats["weight"]))
            if number == 2:
                moved = {name: np.abs(np.asarray(leaf) - before[name]).max() for name, leaf in flatten(state.trainable).items()}
                assert moved.keys() == before.keys() and min(moved.values()) > 1e-5, moved
        all_losses.append(losses)
        if gigabytes:
            assert batch["hidden"].shape[-1] == 32 * len(READS[method]) and len(list(storage.folder("prefix").iterdir())) == 2
    np.testing.assert_allclose(*all_losses, atol=1e-6)
    assert np.ptp(all_losses[0]) > 1e-4  # otherwise the comparison shows nothing


def test_methods_that_read_the_same_stages_share_a_cache_and_others_do_not():
    tokens = pipeline.tokens(model_of("scalar_mix"), Examples(("0",), (("a film",),), ()))
    keys = {method: feature_cache.key(model_of(method), tokens, 3) for method in READS}
    assert keys["feature_bilstm"] == keys["feature_concat"] == feature_cache.key(model_of("linear_probe"), tokens, 3)
    assert len(set(keys.values())) == 4


@pytest.mark.slow
@EACH
def test_packed_and_padded_give_the_same_logits_and_nothing_leaks(method):
    model = model_of(method)
    batch, other = (batch_of(model, "packed", change) for change in (False, True))
    packed, changed, others = by_example(model, batch), by_example(model, other), np.arange(16) != 5
    np.testing.assert_allclose(by_example(model, batch_of(model, "padded")), packed, atol=1e-5)
    assert np.array_equal(packed[others], changed[others]) and not np.array_equal(packed[5], changed[5])
    assert batch["tokens"].shape[0] < 16  # some rows hold several examples
    before, after = (by_example(model, b | {"segments": np.minimum(b["segments"], 1)}) for b in (batch, other))
    assert not np.array_equal(before[others], after[others])  # without segments, examples attend to each other


@EACH
def test_only_the_head_has_gradients(method):
    model = model_of(method)
    batch = batch_of(model, "packed")
    loss = lambda both: model.loss(*both, batch, jax.random.key(0))[0]  # noqa: E731
    head, encoder = map(flatten, jax.jit(jax.grad(loss))((model.trainable, model.frozen)))
    assert all(np.any(grad) for grad in head.values()) and not any(np.any(grad) for grad in encoder.values())
    assert any("reader" in name for name in head) == (method not in ("chosen_layer", "last4_concat"))


def pooled_logits(model: AdaptedModel, batch, features: np.ndarray) -> np.ndarray:
    """Return the classifier's logits for the mean of each example's features, in NumPy: [n, C]."""
    kernel, bias = (np.asarray(model.trainable["head"]["classifier"][name], np.float64) for name in ("kernel", "bias"))
    logits = {}
    for row, place in zip(*np.nonzero(batch["weights"]), strict=True):
        mean = features[row, batch["segments"][row] == place + 1].mean(0)
        logits[batch["examples"][row, place]] = mean @ kernel + bias
    return np.stack([logits[i] for i in range(16)])


@pytest.mark.parametrize(("number", "stage"), [(-2, 1), (-1, 2), (0, 0), (1, 1), (-3, 0)])
def test_chosen_layer_is_a_linear_probe_of_that_stage(number, stage):
    model = model_of("chosen_layer", feature_layer=number)
    batch = batch_of(model, "packed")
    actual, stages = by_example(model, batch), stages_of(model, batch)
    np.testing.assert_allclose(actual, pooled_logits(model, batch, stages[stage]), atol=1e-5)
    assert all(np.abs(actual - pooled_logits(model, batch, stages[i])).max() > 1e-3 for i in range(3) if i != stage)


@pytest.mark.parametrize("number", [3, -4])
def test_a_stage_number_out_of_range_is_refused(number):
    with pytest.raises(InputError, match=rf"feature_layer={number}: the encoder has embeddings \(0\) and 2 layers; use -3 to 2"):
        model_of("chosen_layer", feature_layer=number)


def test_a_reader_names_the_right_stages_of_a_deep_encoder():
    stages = ("embeddings", *(f"layer_{i}" for i in range(12)))
    wanted = {"chosen_layer": (11,), "last4_concat": (9, 10, 11, 12), "scalar_mix": tuple(range(13)), "feature_bilstm": (12,)}
    for method, numbers in wanted.items():
        assert methods.recipe(stages, config(method)).reader.stages(13) == numbers


def test_scalar_mix_weighs_the_right_stages():
    model = model_of("scalar_mix")
    batch, reader = batch_of(model, "packed"), model.trainable["head"]["reader"]
    s, gamma = np.asarray(reader["s"], np.float64), float(reader["gamma"])
    mixed = lambda s: gamma * np.tensordot(np.exp(s) / np.exp(s).sum(), np.stack(stages_of(model, batch)), 1)  # noqa: E731
    np.testing.assert_allclose(by_example(model, batch), pooled_logits(model, batch, mixed(s)), atol=1e-5)
    assert np.abs(by_example(model, batch) - pooled_logits(model, batch, mixed(s[::-1]))).max() > 1e-3


def test_feature_concat_has_an_embedding_of_the_whole_vocabulary():
    model = model_of("feature_concat")
    words = model.trainable["head"]["reader"]["word"]["embedding"]
    assert words.shape == (model.encoder.config.vocab_size, 8) and words.shape[0] >= len(model.tokenizer)
    assert model.trainable["head"]["classifier"]["kernel"].shape == (32 + 2 * 8, 2)
    batch = batch_of(model, "packed")
    grads = jax.jit(jax.grad(lambda p: model.loss(p, model.frozen, batch, jax.random.key(0))[0]))(model.trainable)
    moved = np.abs(np.asarray(grads["head"]["reader"]["word"]["embedding"])).max(-1) > 0
    assert set(np.flatnonzero(moved)) == set(batch["tokens"][batch["segments"] > 0])  # padding has no gradient


@pytest.mark.parametrize("option", ["feature_bilstm.size", "feature_bilstm.layers", "feature_concat.embedding", "feature_concat.size"])
def test_a_size_under_1_is_refused(option):
    for method in ("feature_bilstm", "feature_concat"):
        c = fields.copied(config(method), {option: 0})
        if option.startswith(method):
            with pytest.raises(InputError, match=f"{option}=0 must be at least 1"):
                methods.recipe(("embeddings", "layer_0"), c)
        else:
            assert methods.recipe(("embeddings", "layer_0"), c).reader is not None


@EACH
def test_the_method_sets_learning_rate_and_pooling_and_the_pooler_is_refused(method):
    c = config(method)
    assert methods.METHODS[method].pooling == "mean" and c.learning_rate >= 20 * c.base_learning_rate
    with pytest.raises(InputError, match="pooling='pooler'.*use mean, first or max"):
        model_of(method, pooling="pooler")


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("scalar_mix+chosen_layer", "scalar_mix and chosen_layer both set how features are read"),
        ("full+chosen_layer", "encoder/layer_1/.* would train, but the head reads layer_0 and nothing above it"),
        ("linear_probe+scalar_mix", "linear_probe adds nothing to scalar_mix"),
        ("chosen_layer+lora", "delta/lora/layer_1/attention/.* would train, but the head reads layer_0 and nothing above it"),
    ],
)
def test_methods_that_contradict_each_other_are_refused(method, message):
    with pytest.raises(InputError, match=message):
        model_of(method)


def test_another_method_may_train_the_stages_that_are_read():
    model = model_of("full+chosen_layer", feature_layer=1, freeze="encoder/layer_1", pooling="first")
    batch = batch_of(model, "packed")
    assert not any("layer_1" in name for name in model.plan.trained)
    grads = flatten(jax.jit(jax.grad(lambda p: model.loss(p, model.frozen, batch, jax.random.key(0))[0]))(model.trainable))
    trained = [name for name in model.plan.trained if "attention/key/bias" not in name]  # the softmax cancels it
    assert len(trained) > 15 and all(np.abs(grads[name]).max() > 1e-7 for name in trained)
    alone = model_of("chosen_layer", feature_layer=1)
    assert not [name for name in alone.plan.trained if name.startswith("encoder/")], "without another method, the encoder is frozen"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["last4_concat", "scalar_mix"])
def test_with_lora_the_head_reads_the_states_that_lora_changes(method):
    """Check that stages below the first delta are read from the cache and stages above it are computed."""
    model = model_of(f"{method}+lora", lora__targets="layer_1/attention/query")
    batch, frozen_stages = batch_of(model, "packed"), model.plan.frozen_stages(model.encoder.stages)
    assert frozen_stages == 2 and model.reads(2) == tuple(sorted({i for i in READS[method] if i < 2} | {1}))
    uncached = by_example(model, batch)
    hidden = np.asarray(jax.jit(model.below, static_argnums=2)(model.frozen, batch, 2))
    np.testing.assert_allclose(by_example(model, batch | {"hidden": hidden}), uncached, atol=1e-6)
    delta = jax.tree.map(lambda leaf: leaf + 0.5, model.trainable["delta"])
    changed = by_example(model, batch, {**model.trainable, "delta": delta})
    assert np.abs(changed - uncached).max() > 1e-4


@pytest.mark.slow
@EACH
def test_embedding_noise_reaches_the_last_states_that_are_read(method):
    model = model_of(method)
    batch = batch_of(model, "packed")
    logits = jax.jit(lambda embedding_noise: model.logits(model.trainable, model.frozen, batch, None, embedding_noise))
    zeros = np.zeros((*batch["tokens"].shape, 32), np.float32)
    is_example = batch["weights"] > 0
    unperturbed = np.asarray(logits(zeros))[is_example][np.argsort(batch["examples"][is_example])]
    np.testing.assert_allclose(unperturbed, by_example(model, batch), atol=1e-6)
    assert np.abs(logits(zeros + 0.5) - logits(zeros)).max() > 1e-3
