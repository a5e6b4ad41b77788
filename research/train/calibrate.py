"""Statistics of the training data that training hooks need, computed before training begins."""

import dataclasses
from collections.abc import Iterator

import jax

from research.adapt.adapted_model import AdaptedModel, Batch
from research.data.batches import Batches
from research.parallel.layouts import Layout
from research.params.tree import Tree
from research.train.step import mean_gradient, split_microbatches


def calibrate(model: AdaptedModel, batches: Batches, layout: Layout) -> AdaptedModel:
    """Return `model` with the statistics that its hooks compute before training. A gradient is computed only when a hook asks for it. The
    statistics depend only on the config and the data, so a resumed run gets the same ones."""
    return dataclasses.replace(model, statistics=model.recipe.hook.calibrate(lambda: gradients(model, batches, layout)))


def gradients(model: AdaptedModel, batches: Batches, layout: Layout) -> Iterator[Tree]:
    """Yield the gradient of the mean loss of each batch of the first epoch, at the initial parameters, without dropout."""

    def loss(trainable: Tree, frozen: Tree, part: Batch, key: None):
        loss, weight = model.task.loss(model.logits(trainable, frozen, part), part)
        return loss, {"weight": weight}

    def step(trainable: Tree, frozen: Tree, batch: Batch, axis: str | None):
        return mean_gradient(jax.grad(loss, has_aux=True), axis, trainable, frozen, batch, None)[0]

    program, trees = layout.compile(step), [layout.replicate(tree) for tree in (model.trainable, model.frozen)]
    for batch in batches.epoch(0):
        yield layout.first(program(*trees, split_microbatches(batch, model.config.accumulate, layout)))
