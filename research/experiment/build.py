"""From a config to everything a run needs: data, model, parameters, plan, optimizer, loss. The wiring, on one page."""

import copy
import dataclasses
from collections.abc import Callable

import jax
from ml_collections import ConfigDict

from research.config import durations, fields
from research.data import loading
from research.data.examples import Dataset
from research.errors import InputError
from research.experiment import experiment
from research.experiment.experiment import Experiment
from research.experiment.initialize import models_of, own_words
from research.parallel import layouts
from research.tasks import catalog
from research.train import calibrate, feature_cache, optimizer, phases


def load_data(config: ConfigDict) -> Dataset:
    """The task's examples, as `config.data` says: its fields are the arguments of `sources.load`."""
    return loading.load(catalog.of(config), **config.data.to_dict())


def build(config: ConfigDict) -> Experiment:
    """All of an experiment. Raises InputError on whatever of the config cannot be used."""
    return experiments_of(config)(config)


def plan_of(config: ConfigDict) -> Experiment:
    """The experiment of `config` with shapes for parameters: `summary(plan_of(config).model)` is the plan, and nothing was computed.

    Raises InputError on whatever `build` raises it on.
    """
    return experiments_of(config, shapes_only=True)(config)


def experiments_of(config: ConfigDict, *, shapes_only: bool = False) -> Callable[[ConfigDict], Experiment]:
    """Return a function that makes the experiments of configs that differ from `config` in the seed and in scalars of the step alone.

    Data, tokens and pretrained parameters are read once. The scalars are `learning_rate`, `weight_decay`, `label_smoothing` and dropout
    rates over 0."""
    fields.check_ranges(config)
    layout, data = layouts.layout(config.parallel), load_data(config)
    model_of = models_of(config, data.labels, own_words(config, data), shapes_only=shapes_only)
    first = model_of(config)
    batches = {split: first.batches(examples, layout, training=split == "train") for split, examples in data.splits.items()}

    def build(config: ConfigDict) -> Experiment:
        model = first if config.seed == first.config.seed else model_of(config)
        resolved = fields.copied(config, {"pooling": model.config.pooling})
        # A copy, because a training step takes over the buffers of the arrays that it is given.
        trainable = jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, model.trainable)
        model = dataclasses.replace(model, config=resolved, trainable=trainable, label_smoothing=config.label_smoothing)
        train, dev, test = batches["train"].reseeded(config.seed), copy.copy(batches["dev"]), batches["test"]
        model = model if shapes_only else calibrate.calibrate(model, train, layout)
        sizes = {"batch_size": train.batch_size, "epoch_steps": train.steps}
        total = durations.steps(config, "total", **sizes)
        if not total:
            raise InputError("config: the total is 0 steps; nothing would be trained")
        total = max(total, len(model.plan.phases)) if config.smoke else total
        warmup = durations.steps(config, "warmup", total=total, least=0, **sizes)
        rate = optimizer.schedule(config.schedule, config.learning_rate, warmup, total)
        found = phases.make(model, total, sizes)
        e = Experiment(config, model, data, layout, train, dev, test, total, rate, found)
        for name in experiment.RHYTHMS:
            e.steps_of(name)
        if shapes_only:
            if e.keeps_states(found[0]):
                feature_cache.check_size(model.at(found[0].plan, model.trainable), train.tokens, config.prefix_cache_gb)
            return e
        e.enter(found[0], model.trainable)
        if len(found) == 1 and train.hidden is not None:
            dev.hidden = feature_cache.states(model, dev.tokens, layout, config.prefix_cache_gb)
        return e

    return build
