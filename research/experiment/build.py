"""Build an experiment from a config: data, model with parameters and plan, batches, and phases with their optimizers."""

import dataclasses
from collections.abc import Callable, Iterable

import jax
from ml_collections import ConfigDict, FrozenConfigDict

from research.adapt.methods import METHODS
from research.config import durations, fields
from research.config import resolve as resolving
from research.data import loading, pipeline
from research.data.examples import Dataset
from research.errors import InputError
from research.experiment.experiment import INTERVALS, Experiment
from research.experiment.initialize import models_of, training_words
from research.parallel import layouts
from research.tasks import catalog
from research.train import calibrate, feature_cache, optimizer, phases


def resolve(config: ConfigDict, given: Iterable[str] = ()) -> FrozenConfigDict:
    """Return the resolved config of a run, as `research.config.resolve` does with the methods and tasks of this package."""
    return resolving.resolve(config, METHODS, catalog.of, given)


def load_data(config: ConfigDict) -> Dataset:
    """Return the examples of the config's task. The fields of `config.data` are the arguments of `loading.load`."""
    return loading.load(catalog.of(config), **config.data.to_dict())


def build(config: ConfigDict) -> Experiment:
    """Return the experiment of `config`. Raise InputError for a config that cannot be used."""
    return experiments_of(config)(config)


def plan_of(config: ConfigDict) -> Experiment:
    """Return the experiment of `config` with shapes for parameters, without computing them. `summary(plan_of(config).model)` is the plan.

    Raise InputError where `build` raises it.
    """
    return experiments_of(config, shapes_only=True)(config)


def experiments_of(config: ConfigDict, *, shapes_only: bool = False) -> Callable[[ConfigDict], Experiment]:
    """Return a function that builds the experiment of a config that differs from `config` only in the seed and in scalars of the step.

    These scalars are `learning_rate`, `weight_decay`, `label_smoothing` and dropout rates above 0. Data, tokens and pretrained parameters
    are read once for all experiments."""
    layout, data = layouts.layout(config.parallel), load_data(config)
    model_of = models_of(config, data.task, training_words(config, data), shapes_only=shapes_only)
    first = model_of(config)
    batches = {
        split: pipeline.batches(first, examples, layout.multiple, training=split == "train") for split, examples in data.splits.items()
    }

    def build(config: ConfigDict) -> Experiment:
        model = first if config.seed == first.config.seed else model_of(config)
        resolved = fields.copied(config, {name: model.config[name] for name in fields.AUTO_FIELDS})
        # Copy the arrays, because the training step donates the buffers of its arguments.
        trainable = jax.tree.map(lambda x: x.copy() if isinstance(x, jax.Array) else x, model.trainable)
        model = dataclasses.replace(model, config=resolved, trainable=trainable, label_smoothing=config.label_smoothing)
        train, dev, test = batches["train"].reseeded(config.seed), batches["dev"].reseeded(0), batches["test"]
        model = model if shapes_only else calibrate.calibrate(model, train, layout)
        sizes = {"batch_size": train.batch_size, "epoch_steps": train.steps}
        total = durations.steps(config, "total", **sizes)
        if not total:
            raise InputError("config: the total is 0 steps; nothing would be trained")
        total = max(total, len(model.plan.phases)) if config.smoke else total
        warmup = durations.steps(config, "warmup", total=total, least=0, **sizes)
        rate = optimizer.schedule(config.schedule, config.learning_rate, warmup, total)
        run_phases = phases.make(model, total, sizes)
        experiment = Experiment(config, model, data, layout, train, dev, test, total, rate, run_phases)
        for name in INTERVALS:
            experiment.steps_of(name)  # raises here, not in the middle of the training
        if experiment.keeps_states(run_phases[0]):
            in_phase = model.at(run_phases[0].plan, model.trainable)
            feature_cache.check_size(in_phase, train.tokens, config.prefix_cache_gb)
            if len(run_phases) == 1 and not shapes_only:
                train, dev = (feature_cache.with_states(in_phase, x, layout, config.prefix_cache_gb) for x in (train, dev))
        return dataclasses.replace(experiment, train=train, dev=dev)

    return build
