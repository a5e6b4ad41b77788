"""The contract of tasks, for every kind: what the rest of the package relies on. A new kind adds a line to `KINDS`."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from research.config import fields
from research.data import pipeline
from research.errors import InputError
from research.experiment import build as experiments
from research.parallel.layouts import Layout
from research.tasks.base import Task
from research.train import trainers
from research.train.evaluate import evaluate
from tests import runs
from tests.adapt.small import noisy

KINDS = {"classification": ("trec", "smoke"), "binary": ("imdb", "smoke"), "pairs": ("mrpc", "smoke"), "tagging": ("tagging", "smoke")}


@pytest.fixture(scope="module", params=KINDS)
def experiment(request):
    """Return a built smoke run in float32 with noise on the parameters, so that predictions differ."""
    e = experiments.build(runs.config(*KINDS[request.param], precision="float32"))
    return dataclasses.replace(e, model=dataclasses.replace(e.model, trainable=noisy(e.model.trainable, 0.15)))


def logits_of(e, batch):
    return e.model.logits(e.model.trainable, e.model.frozen, batch)


def evaluated(model, batches):
    return evaluate(trainers.eval_program(model, Layout()), model.trainable, model.frozen, batches, Layout(), model.task.outputs_per)


def tree_sum(trees):
    return jax.tree.map(lambda *x: np.sum([np.asarray(leaf, np.float64) for leaf in x], 0), *trees)


def one_by_one(batch):
    """Yield the batch with one example left, for each example: no other has a weight or, in tagging, tags."""
    weights = np.asarray(batch["weights"])
    for row, place in zip(*np.nonzero(weights), strict=True):
        alone = np.zeros_like(weights)
        alone[row, place] = 1.0
        tokens = (np.arange(len(weights))[:, None] == row) & (batch["segments"] == place + 1)
        yield {**batch, "weights": alone} | ({"tags": batch["tags"] * tokens} if "tags" in batch else {})


def test_the_task_learns_from_train_and_can_be_rebuilt_from_json(experiment):
    task, train = experiment.model.task, experiment.data.splits["train"]
    saved = json.loads(json.dumps(task.learnt))
    rebuilt = type(task).with_learnt(experiments.load_data(experiment.config).task, saved)
    assert rebuilt == task and rebuilt.fit(train.labels, "train") == task
    for label in train.labels:
        task.check(task.normalized(label), "here")
    assert len(task.strata(train.labels)) == len(train.labels)
    assert isinstance(task.describe({name: split.labels for name, split in experiment.data.splits.items()}), list)


def test_loss_and_stats_are_sums_over_the_examples(experiment):
    task, batch = experiment.model.task, next(experiment.dev.epoch(0))
    logits = logits_of(experiment, batch)
    loss, weight = task.loss(logits, batch)
    each = [task.loss(logits, one) for one in one_by_one(batch)]
    assert len(each) > 1 and float(loss) == pytest.approx(sum(float(x) for x, _ in each), rel=1e-5)
    assert float(weight) == pytest.approx(sum(float(x) for _, x in each), rel=1e-6)
    assert float(loss) != pytest.approx(float(each[0][0]), rel=1e-3)
    total = tree_sum([task.stats(logits, one) for one in one_by_one(batch)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), total, dict(task.stats(logits, batch)))
    assert float(task.stats(logits, batch)["loss"]) == pytest.approx(float(loss), rel=1e-6)


def test_places_without_an_example_have_no_effect(experiment):
    task, batch = experiment.model.task, next(experiment.dev.epoch(0))
    logits = np.array(logits_of(experiment, batch))
    empty = ~experiment.dev.members(batch, task.outputs_per)[0]
    other = logits.copy()
    other[empty] = 100.0
    for function in (task.loss, task.stats, lambda z, b: task.divergence(z, logits[..., ::-1].copy(), b)):
        jax.tree.map(np.testing.assert_array_equal, function(logits, batch), function(other, batch))
    other[~empty] += np.arange(logits.shape[-1]) + 1.0
    assert float(task.loss(other, batch)[0]) != float(task.loss(logits, batch)[0]), "places with an example do"


def test_the_divergence_is_zero_for_equal_predictions_and_symmetric(experiment):
    task, batch = experiment.model.task, next(experiment.dev.epoch(0))
    logits = np.array(logits_of(experiment, batch))
    other = logits + np.random.default_rng(0).normal(size=logits.shape).astype(np.float32)
    assert float(task.divergence(logits, logits, batch)) == 0.0
    assert float(task.divergence(logits, other, batch)) == pytest.approx(float(task.divergence(other, logits, batch)), rel=1e-5) != 0.0


def test_packed_and_padded_batches_give_the_same_outputs_and_metrics(experiment):
    model, dev = experiment.model, experiment.data.splits["dev"]
    layouts = [dataclasses.replace(model, config=fields.copied(model.config, {"packing": packing})) for packing in ("packed", "padded")]
    packed, padded = (evaluated(model, pipeline.batches(laid_out, dev, 1)) for laid_out in layouts)
    for name, values in packed.outputs.items():
        np.testing.assert_allclose(values, padded.outputs[name], atol=2e-5)
        assert values.dtype == bool or np.abs(values - values[::-1]).max() > 1e-2
    metrics = [model.task.metrics(one.stats, one.outputs, dev.labels) for one in (packed, padded)]
    assert metrics[0] == pytest.approx(metrics[1], abs=1e-4)


def test_metrics_titles_and_selection_name_the_same_things(experiment):
    task, dev = experiment.model.task, experiment.data.splits["dev"]
    evaluation = evaluated(experiment.model, experiment.dev)
    metrics = task.metrics(evaluation.stats, evaluation.outputs, dev.labels)
    assert {"loss", *task.metric_names} <= metrics.keys() and all(math.isfinite(x) for x in metrics.values())
    assert set(task.titles) <= metrics.keys() and task.metric in task.titles and task.lower_is_better <= set(task.metric_names)
    selection = json.loads(json.dumps(task.selection))
    assert selection["metric"] == task.metric and selection["higher_is_better"] is task.higher_is_better
    rows = list(task.decode(evaluation.outputs, dev.texts))
    for row, label in zip(rows, dev.labels, strict=True):
        assert json.loads(json.dumps(row)) == row and "prediction" in row
        assert type(row["prediction"]) is type(json.loads(json.dumps(label)))
    assert isinstance(task.report({"dev": evaluation.stats}, {"dev": evaluation.outputs}, {"dev": dev.labels}), dict)
    assert isinstance(task.hints([{"label": label, **row} for label, row in zip(dev.labels, rows, strict=True)]), list)


def test_a_metric_of_another_kind_is_refused(experiment):
    with pytest.raises(InputError, match="metric 'perplexities' is not known"):
        experiment.model.task.configured("perplexities", "")


def test_the_contract_itself_promises_nothing():
    with pytest.raises(NotImplementedError):
        Task("nothing").fit(["a"], "here")
