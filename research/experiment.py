"""From a config to everything a run needs: data, model, parameters, plan, optimizer, loss. The wiring, on one page."""

import copy
import dataclasses
import functools
import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import common
from research import durations, findings, models, optim, parallel, phases, prefix, weights
from research.adapt import methods
from research.adapt.recipe import Recipe
from research.data import sources
from research.data.batches import Batches
from research.data.examples import Dataset
from research.errors import InputError
from research.model import Batch, Model, one_row
from research.models.heads import Style
from research.params.tree import Tree, flatten, split, unflatten
from research.tasks import catalog, classification
from research.weights import adapter

KINDS = {"classification": classification}
KEYS = (
    "encoder",
    "head",
    "delta",
    "dropout",
    "begin",
)  # new names go to the end: a key depends on its place; data order has the seed itself


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model and what trains it."""

    config: ConfigDict
    model: Model
    data: Dataset
    layout: parallel.Layout
    train: Batches
    dev: Batches
    test: Batches
    total_steps: int
    rate: optax.Schedule
    phases: tuple[phases.Phase, ...]

    @property
    def tx(self) -> optax.GradientTransformation:
        """The optimizer of the first phase."""
        return self.phases[0].tx

    @property
    def dropout_key(self) -> jax.Array:
        """uint32 key data from which every step's dropout follows."""
        return jax.random.key_data(named_keys(self.config.seed)["dropout"])

    @functools.cached_property
    def rates(self) -> np.ndarray:
        """The learning rate of each update, float32 [total_steps]. Each by itself would be a handful of small computations."""
        return np.broadcast_to(self.rate(np.arange(self.total_steps)), self.total_steps)

    def position(self, step: int) -> dict[str, int]:
        """Where in the data the run stands after `step` updates."""
        epoch, batch = divmod(step, self.train.steps)
        return {"epoch": epoch, "batch": batch}

    def enter(self, phase: phases.Phase, values: Tree) -> Model:
        """The model in `phase`, where `values` are those of all that trains at some time; its training batches bring what its frozen
        stages give, if examples come round again."""
        model = self.model.at(phase.plan, values)
        again = self.config.prefix_cache_gb and phase.stop - phase.start > self.train.steps
        self.train.hidden = prefix.states(model, self.train.tokens, self.layout, self.config.prefix_cache_gb) if again else None
        return model

    def phase_of(self, step: int) -> phases.Phase:
        """The phase that update number `step` (the first is 1) belongs to."""
        return next(phase for phase in self.phases if step <= phase.stop)

    def steps_of(self, name: str) -> int:
        """The config's duration `name`, in steps."""
        sizes = {"batch_size": self.train.batch_size, "epoch_steps": self.train.steps, "total": self.total_steps}
        return durations.steps(self.config, name, **sizes)

    def schedule_of(self, *names: str) -> Callable[[str, int], bool]:
        """`due(name, step)`: whether the config's duration `name` has come round at `step`. The last step is due for all."""
        every = {name: self.steps_of(name) for name in names}
        return lambda name, step: step == self.total_steps or (every[name] > 0 and step % every[name] == 0)


def named_keys(seed: int) -> dict[str, jax.Array]:
    """One key for each use of chance. They do not depend on the method, so methods are compared on the same head."""
    key = jax.random.key(seed)
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(KEYS)}


def build_model(config: ConfigDict, labels: tuple[str, ...], words: tuple[str, ...] = ()) -> Model:
    """The model of `config` for classes `labels`. `words` are those that it takes from the training texts (`weights.own_words`)."""
    return models_of(config, labels, words)(config)


def models_of(config: ConfigDict, labels: tuple[str, ...], words: tuple[str, ...]) -> Callable[[ConfigDict], Model]:
    """What makes the models of all configs that differ from `config` in the seed alone, by the order of initialisation that everything
    relies on."""
    task, keys = catalog.get(config.task), named_keys(config.seed)
    kind, checkpoint = KINDS[task.kind], weights.begin(config, words)
    style = models.family(checkpoint.config).style(checkpoint.config)
    encoder = _encoder(checkpoint.config, config, style)
    tokenizer = checkpoint.tokenizer()
    if tokenizer is None:
        raise InputError(f"{checkpoint.folder}: no tokenizer there (tokenizer.json or vocab.txt)")
    special = tokenizer.num_special_tokens_to_add(pair=len(task.texts) == 2)
    if config.max_length <= special:
        raise InputError(f"max_length={config.max_length} leaves no room beside {special} special tokens")
    recipe = methods.recipe(encoder.stages, config)
    _check_length(encoder, config, sum(delta.extra_tokens + delta.first_position for delta in recipe.deltas))
    reader = recipe.reader and recipe.reader.for_vocabulary(encoder.config.vocab_size)
    head = kind.head(labels, config, reader, style)
    init, with_deltas = functools.partial(_init, encoder, head, reader, one_row()), functools.partial(_with_deltas, recipe)

    # 1. Shapes: what the model needs, before anything is computed.
    shapes, states = jax.eval_shape(init, keys)
    plan = recipe.plan(jax.eval_shape(with_deltas, shapes, keys), config.freeze, config.no_decay)
    parts = ("encoder", "head") if config.weights.head else ("encoder",)
    drawn = [name for name in flatten(shapes) if recipe.begins_anew(name) or not checkpoint.gives(name, parts)]
    random = jax.jit(lambda keys: split(init(keys)[0], drawn)[0])

    def build(config: ConfigDict) -> Model:
        keys = named_keys(config.seed)
        # 2. Random parameters, each part from its own key: those that are wanted, and the shapes of the others.
        params = fresh = unflatten(flatten(shapes) | flatten(random(keys)))
        # 3. Pretrained parameters over them, strictly.
        params = params | checkpoint.onto({part: params[part] for part in parts}, labels)
        # 4. What the method begins with: parts made anew, noise, deltas.
        for regulariser in recipe.regularisers:
            params = regulariser.begin(params, fresh, keys["begin"])
        params = with_deltas(params, keys)
        if config.weights.adapter:
            params = adapter.graft(Path(config.weights.adapter), params, checkpoint, config)
        # 5. What trains, and what does not.
        trainable, frozen = split(params, plan.trained)
        # 6. The optimizer's state is made from the trainable half by `train.init_state`; then resuming overrides all of it.
        return Model(
            task=task,
            kind=kind,
            labels=labels,
            words=words,
            encoder=encoder,
            head=head,
            tokenizer=tokenizer,
            config=config,
            recipe=recipe,
            trainable=trainable,
            frozen=frozen,
            plan=plan,
            widths=tuple(state.shape[-1] for state in states),
            weights_sha256=checkpoint.sha256,
            note=checkpoint.note,
        )

    return build


def _encoder(shape: dict[str, Any], config: ConfigDict, style: Style) -> nn.Module:
    return models.build(
        shape,
        precision=config.precision,
        pooler=config.pooling == style.pooling == "pooler",
        dropout=config.dropout,
        attention_dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
    )


def _check_length(encoder: nn.Module, config: ConfigDict, extra: int) -> None:
    room = encoder.config.max_length - extra
    if config.max_length > room:
        less = f" less {extra} that method={config.method} takes" if extra else ""
        raise InputError(
            f"max_length={config.max_length} is over the model's {room + extra} positions{less}; use --config.max_length={room}"
        )


def load_data(config: ConfigDict) -> Dataset:
    """The task's examples, as `config.data` says: its fields are the arguments of `sources.load`."""
    return sources.load(catalog.get(config.task), **config.data.to_dict())


def own_words(config: ConfigDict, data: Dataset) -> tuple[str, ...]:
    """The words of the training texts, where they are the model's vocabulary."""
    return weights.own_words(config, itertools.chain.from_iterable(data.splits["train"].texts))


def build(config: ConfigDict) -> Experiment:
    """All of an experiment. Raises InputError on whatever of the config cannot be used."""
    return experiments_of(config)(config)


def experiments_of(config: ConfigDict) -> Callable[[ConfigDict], Experiment]:
    """What makes the experiments of all configs that differ from `config` in the seed alone: everything else is done once."""
    common.check_ranges(config)
    layout, data = parallel.layout(config.parallel), load_data(config)
    model_of = models_of(config, data.labels, own_words(config, data))
    first = model_of(config)
    batches = {split: first.batches(examples, layout, training=split == "train") for split, examples in data.splits.items()}

    def build(config: ConfigDict) -> Experiment:
        model = first if config.seed == first.config.seed else model_of(config)
        train, dev, test = batches["train"].reseeded(config.seed), copy.copy(batches["dev"]), batches["test"]
        model = findings.add(model, train, layout)
        sizes = {"batch_size": train.batch_size, "epoch_steps": train.steps}
        total = durations.steps(config, "total", **sizes)
        if not total:
            raise InputError("config: the total is 0 steps; nothing would be trained")
        warmup = durations.steps(config, "warmup", total=total, least=0, **sizes)
        rate = optim.schedule(config.schedule, config.learning_rate, warmup, total)
        found = phases.make(model, rate, total, sizes)
        e = Experiment(config, model, data, layout, train, dev, test, total, rate, found)
        e.enter(found[0], model.trainable)
        if len(found) == 1 and train.hidden is not None:
            dev.hidden = prefix.states(model, dev.tokens, layout, config.prefix_cache_gb)
        return e

    return build


def _init(encoder: nn.Module, head: nn.Module, reader: nn.Module | None, batch: Batch, keys: dict[str, jax.Array]) -> tuple:
    """Random parameters, and the states of all stages."""
    encoded, variables = encoder.init_with_output(keys["encoder"], batch)
    states = encoded.stages
    if reader is not None:
        encoded = encoded.replace(stages=tuple(states[i] for i in reader.stages(len(encoder.stages))))
    return {"encoder": variables["params"], "head": head.init(keys["head"], encoded, batch)["params"]}, states


def _with_deltas(recipe: Recipe, params: Tree, keys: dict[str, jax.Array]) -> Tree:
    encoder, trees = flatten(params["encoder"]), {}
    for delta in recipe.deltas:
        key = jax.random.fold_in(keys["delta"], zlib.crc32(delta.name.encode()))
        trees[delta.name] = unflatten(delta.init(key, encoder))
    return {**params, "delta": trees} if trees else params
