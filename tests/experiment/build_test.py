"""Test the building of experiments: runs stay comparable, frozen stages cost nothing, and bad input is refused in one line."""

import dataclasses

import jax
import numpy as np
import pytest

from research.adapt import summary
from research.data import pipeline
from research.data.examples import Examples
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import workdir
from research.parallel import layouts
from research.params.tree import digest, flatten, merge
from research.train import trainers
from research.train.step import init_state, split_microbatches
from tests import runs


def test_the_method_changes_neither_head_nor_data_order():
    one, other = (experiments.build(runs.config(arg=f"smoke,method={m}")) for m in ("full", "linear_probe"))
    assert digest(one.model.trainable["head"]) == digest(other.model.trainable["head"])
    for a, b in zip(one.train.epoch(1), other.train.epoch(1), strict=True):
        assert np.array_equal(a["examples"], b["examples"])
    third = experiments.build(runs.config(seed=1))
    assert digest(one.model.trainable["head"]) != digest(third.model.trainable["head"])


def test_pretrained_parameters_replace_the_random_ones_and_scratch_keeps_them():
    one, scratch = (runs.build_model(runs.config(**change), ("a", "b")) for change in ({}, {"weights__source": "scratch"}))
    name = "encoder/layer_0/mlp/up/kernel"
    assert not np.array_equal(flatten(one.trainable)[name], flatten(scratch.trainable)[name])
    assert np.array_equal(flatten(one.trainable)["head/classifier/kernel"], flatten(scratch.trainable)["head/classifier/kernel"])
    assert one.weights_sha256 and not scratch.weights_sha256


def test_examples_are_those_of_the_datas_seed_and_of_the_runs_where_that_is_empty():
    load = lambda **given: experiments.load_data(runs.config(**given)).splits["train"].ids  # noqa: E731
    assert load(seed=0) == load(seed=1) == load(data__seed=0, seed=1) != load(data__seed=1)
    assert load(data__seed=None, seed=1) == load(data__seed=1) and load(data__seed=None) == load()


def test_a_text_is_cut_alike_in_training_and_wherever_else_it_is_read():
    examples, ids = Examples(("x",), (("a b c d e f g h",),), ()), {}
    for truncation in ("head", "tail", "head_tail"):
        model = runs.build_model(runs.config(max_length=6, truncation=truncation, truncation_head=3), ("a", "b"))
        (batch,) = pipeline.batches(model, examples, 1).epoch(0)
        ids[truncation] = batch["tokens"][0, :6].tolist()
        assert ids[truncation] == pipeline.tokens(model, examples).ids.tolist()
    model = runs.build_model(runs.config(), ("a", "b"))
    uncut = pipeline.tokens(model, examples).ids.tolist()
    assert ids == {"head": [*uncut[:5], uncut[-1]], "tail": [uncut[0], *uncut[-5:]], "head_tail": [*uncut[:3], *uncut[-3:]]}
    assert len(uncut) == len(set(uncut)) == 10


def test_what_the_config_says_of_augmentation_is_done_to_the_training_texts():
    unchanged, more = (experiments.load_data(runs.config(**given)) for given in ({}, {"data__augment": "swap", "data__augment_copies": 2}))
    assert {split: len(examples) for split, examples in more.splits.items()} == {"train": 96, "dev": 16, "test": 16}
    assert more.splits["test"] == unchanged.splits["test"] and len(unchanged.splits["train"]) == 32
    for wrong in ({"data__augment_rate": 1.0}, {"data__augment_copies": 0}):
        with pytest.raises(InputError, match="must be at least"):
            experiments.build(runs.config(data__augment="swap", **wrong))


@pytest.mark.parametrize("method", ["full", "linear_probe", "top_k"])
def test_what_is_frozen_has_no_optimizer_state_and_does_not_move(method):
    e = experiments.build(runs.config(arg=f"smoke,method={method}", learning_rate=0.01, parallel="jit", warmup_percent=0.0))
    state = init_state(e.model.trainable, e.tx)
    trained = flatten(e.model.trainable)
    moments = {path[-1] for path in ("/".join(str(k) for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(state.opt_state))}
    assert moments
    sizes = sum(x.size for x in jax.tree.leaves(state.opt_state) if x.ndim)
    assert sizes == 2 * sum(x.size for x in trained.values())
    frozen, before = digest(jax.tree.map(np.asarray, e.model.frozen)), {name: np.array(x) for name, x in trained.items()}
    step, stream = trainers.train_program(e), e.train.stream()
    for _ in range(3):
        state, _ = step(state, e.model.frozen, split_microbatches(next(stream), 1, e.layout), e.dropout_key, e.scalars(1))
    assert digest(jax.tree.map(np.asarray, e.model.frozen)) == frozen
    unread = {"encoder/embeddings/type/embedding", "encoder/embeddings/position/embedding", "encoder/embeddings/word/embedding"}
    still = [name for name, x in flatten(state.trainable).items() if np.array_equal(x, before[name])]
    assert set(still) <= unread, still


def test_a_probe_does_about_a_third_of_the_work():
    flops = {}
    for method in ("full", "linear_probe"):
        e = experiments.build(runs.config(arg=f"smoke,method={method}", parallel="jit"))
        step, batch = trainers.train_program(e), next(e.train.stream())
        step(init_state(e.model.trainable, e.tx), e.model.frozen, split_microbatches(batch, 1, e.layout), e.dropout_key, e.scalars(0))
        flops[method] = step.flops
    assert flops["linear_probe"] < 0.36 * flops["full"]


def losses(steps: int = 20, **changes):
    e = experiments.build(runs.config(total_steps=steps, precision="float32", **changes))
    layout, values = e.layout, []
    state, frozen, key = (layout.replicate(x) for x in (init_state(e.model.trainable, e.tx), e.model.frozen, e.dropout_key))
    step, stream = trainers.train_program(e), e.train.stream()
    for _ in range(steps):
        state, stats = step(
            state, frozen, split_microbatches(next(stream), e.config.accumulate, layout), key, e.scalars(int(layout.first(state).step))
        )
        stats = layout.first(stats)
        values.append(float(stats["loss"] / stats["weight"]))
    return np.array(values)


@pytest.mark.devices
def test_devices_layout_and_accumulation_do_not_change_the_losses():
    assert jax.local_device_count() == 8
    one = losses(parallel="jit", batch_size=16)
    assert np.abs(losses(parallel="pmap", batch_size=16) - one).max() < 1e-5
    assert np.abs(losses(parallel="jit", batch_size=16, packing="padded") - one).max() < 1e-5
    assert np.abs(losses(parallel="jit", batch_size=16, accumulate=4) - one).max() < 1e-5
    assert np.abs(losses(parallel="jit", batch_size=16, seed=1) - one).max() > 1e-3


@pytest.mark.devices
def test_evaluation_is_exact_whatever_the_shapes():
    from research.train.evaluate import evaluate

    evaluations = []
    for layout, packing, size in (
        (layouts.Layout(), "packed", 200),
        (layouts.Layout(), "padded", 500),
        (layouts.Layout(8), "packed", 30),
    ):
        e = experiments.build(runs.config(precision="float32", packing=packing, eval_batch_tokens=size))
        program, trees = trainers.eval_program(e.model, layout), (layout.replicate(t) for t in (e.model.trainable, e.model.frozen))
        evaluations.append(evaluate(program, *trees, pipeline.batches(e.model, e.data.splits["test"], layout.multiple), layout))
    for evaluation in evaluations[1:]:
        assert np.array_equal(evaluation.stats["confusion"], evaluations[0].stats["confusion"])
        np.testing.assert_allclose(evaluation.outputs["logits"], evaluations[0].outputs["logits"], atol=1e-5)
    assert evaluations[0].stats["confusion"].sum() == 16


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"max_length": 200}, ["max_length=200", "128 positions"]),
        ({"freeze": "encoder/layer_99"}, ["'encoder/layer_99'", "encoder/layer_"]),
        ({"method": "linear_prob"}, ["'linear_prob'", "'linear_probe'"]),
        ({"task": "imbd"}, ["'imbd'", "'imdb'"]),
        ({"data__source": "file"}, ["'file'", "'files'"]),
        ({"weights__sha256": "0" * 64}, ["sha256", "expected 000"]),
        ({"weights__source": "no/such/folder/at/all"}, ["no/such/folder"]),
        ({"pooling": "maxx"}, ["'maxx'", "'max'"]),
        ({"precision": "float16"}, ["'float16'", "'bfloat16'"]),
        ({"parallel": "mesh"}, ["mesh", "pmap"]),
        ({"packing": "packd"}, ["'packd'", "'packed'"]),
        ({"optimizer": "adamm"}, ["'adamm'", "adam"]),
        ({"schedule": "linaer"}, ["'linaer'", "'linear'"]),
        ({"warmup_steps": 5}, ["warmup", "5 steps of 2"]),
        ({"dropout": 1.0}, ["dropout=1.0", "less than 1"]),
        ({"batch_size": 0}, ["batch_size=0", "at least 1"]),
        ({"clip_norm": -1.0}, ["clip_norm=-1.0", "at least 0"]),
        ({"seed": -1}, ["seed=-1"]),
        ({"max_length": 2}, ["max_length=2"]),
        ({"total_steps": 0}, ["total_steps=0"]),
        ({"optimizer": "lion"}, ["'lion'"]),
        ({"schedule": "warmup"}, ["'warmup'"]),
        ({"total_epochs": 0.0}, ["total_epochs=0"]),
        ({"eval_steps": -1}, ["eval_steps=-1"]),
        ({"method": "linear_probe", "total_steps": 9, "prefix_cache_gb": 1e-6}, ["over prefix_cache_gb=1e-06"]),
    ],
)
def test_a_bad_field_is_one_line_that_names_it(changes, words):
    with pytest.raises(InputError) as error:
        experiments.plan_of(runs.config(**changes))
    line = str(error.value)
    assert "\n" not in line and all(word in line for word in words), line
    with pytest.raises(InputError) as error:
        experiments.build(runs.config(**changes))
    assert str(error.value) == line


@pytest.mark.parametrize("method", ["full", "lora+bitfit", "gradual_unfreezing", "noisytune", "reinit_top", "linear_probe", "scalar_mix"])
def test_the_plan_is_the_runs_and_computes_nothing(method, monkeypatch):
    config = runs.config(method=method, pooling="first" if method == "scalar_mix" else "pooler")
    built = experiments.build(config)
    wanted, sizes = summary.summary(built.model), jax.tree.map(lambda x: x.shape, (built.model.trainable, built.model.frozen))
    monkeypatch.setattr(jax.stages.Lowered, "compile", None)  # nothing is compiled ...
    planned = experiments.plan_of(config)
    assert summary.summary(planned.model) == wanted and planned.total_steps == built.total_steps
    leaves = jax.tree.leaves((planned.model.trainable, planned.model.frozen))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)  # ... and there are no numbers
    assert jax.tree.map(lambda x: x.shape, (planned.model.trainable, planned.model.frozen)) == sizes


@pytest.mark.parametrize(("method", "phases"), [("gradual_unfreezing", 4), ("chain_thaw", 5)])
def test_a_smoke_run_has_a_step_for_each_phase(method, phases):
    planned = experiments.plan_of(runs.config(method=method))
    assert [(phase.start, phase.stop) for phase in planned.phases] == [(i, i + 1) for i in range(phases)]
    with pytest.raises(InputError, match=f"phase 3 of {phases} would begin at step 2, but the training has 2"):
        experiments.plan_of(runs.config(method=method, smoke=False))


def test_split_and_merge_lose_nothing():
    model = runs.build_model(runs.config(arg="smoke,method=top_k"), ("a", "b"))
    full_model = runs.build_model(runs.config(), ("a", "b"))
    assert digest(merge(model.trainable, model.frozen)) == digest(full_model.trainable)


def test_a_tokenizer_with_more_types_than_the_model_is_an_error():
    model = runs.build_model(runs.config("mrpc"), ("a", "b"))
    pair = Examples(("0",), (("one text", "another"),), ())
    assert pipeline.tokens(model, pair).types.max() == 1
    one = dataclasses.replace(model, encoder=model.encoder.clone(config=dataclasses.replace(model.encoder.config, type_vocab_size=1)))
    with pytest.raises(InputError, match="gives tokens of type 1, but the model has 1; they are of two models"):
        pipeline.tokens(one, pair)


def test_fields_that_may_differ_are_matched_whole_or_by_their_group():
    assert workdir.is_one_of("parallel", workdir.USE) and workdir.is_one_of("log_steps", workdir.USE)
    assert not workdir.is_one_of("parallel_adapter.scale", workdir.USE) and not workdir.is_one_of("logs", workdir.USE)
