"""Initialisation of a model: random parameters, then pretrained ones in their place, then the changes of the method."""

import functools
import itertools
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from ml_collections import ConfigDict

from research import weights
from research.adapt import methods
from research.adapt.adapted_model import AdaptedModel
from research.adapt.recipe import Recipe
from research.config import fields
from research.data.batches import Batch, empty
from research.data.examples import Dataset
from research.data.packing import Shape
from research.errors import InputError
from research.experiment import export, pooling
from research.layers.precision import multiplies_bfloat16
from research.models import families
from research.models.heads import Style
from research.params.tree import Tree, flatten, split, unflatten
from research.tasks.base import Task
from research.weights import adapter

ONE_ROW = empty(Shape(rows=1, length=8, places=1), {})  # for shapes


def build_model(config: ConfigDict, task: Task, words: tuple[str, ...] = ()) -> AdaptedModel:
    """Return the model of `config` for a fitted task. `words`: vocabulary from the training texts (`weights.training_words`)."""
    return models_of(config, task, words)(config)


def models_of(config: ConfigDict, task: Task, words: tuple[str, ...], *, shapes_only: bool = False) -> Callable[[ConfigDict], AdaptedModel]:
    """Return a function that builds the model of a config that differs from `config` only in the seed and in scalars of the step. The
    numbered steps are done in the order of their numbers. With `shapes_only`, parameters are ShapeDtypeStructs and nothing is computed."""
    keys, checkpoint = named_keys(config.seed), weights.begin(config, words)
    style = families.family(checkpoint.config).style(checkpoint.config)
    resolved = {"precision": chosen_precision(config.precision)}
    recipe = methods.recipe(families.build(checkpoint.config).stages, fields.copied(config, resolved))
    resolved["pooling"], reason = pooling.resolve(config, checkpoint, style, recipe.reader is not None, task.pools)
    config = fields.copied(config, resolved)
    encoder = _encoder(checkpoint.config, config, style)
    tokenizer = _tokenizer(checkpoint, config.max_length, pair=len(task.texts) == 2)
    _check_length(encoder, config, sum(delta.extra_tokens + delta.first_position for delta in recipe.deltas))
    reader = recipe.reader and recipe.reader.for_vocabulary(encoder.config.vocab_size)
    head = task.head(config, reader, style)
    init, with_deltas = functools.partial(_init, encoder, head, reader, ONE_ROW), functools.partial(_with_deltas, recipe)

    # 1. Shapes of all parameters, so that only the random values that are needed are computed.
    shapes, states = jax.eval_shape(init, keys)
    plan = recipe.plan(jax.eval_shape(with_deltas, shapes, keys), config.freeze, config.no_decay)
    parts = ("encoder", "head") if config.weights.head else ("encoder",)
    random_names = [name for name in flatten(shapes) if recipe.is_reinitialized(name) or not checkpoint.provides(name, parts)]
    random = jax.jit(lambda keys: split(init(keys)[0], random_names)[0])

    def load(fresh: Tree, keys: dict[str, jax.Array]) -> Tree:
        # 3. Pretrained parameters replace random ones. Every name and shape must match.
        params = fresh | checkpoint.load_into({part: fresh[part] for part in parts}, task.classes, task.numbered, task.hub.kind)
        # 4. Changes of the method: reinitialised parameters, noise, deltas.
        params = with_deltas(recipe.hook.init_params(params, fresh, keys["begin"]), keys)
        return adapter.graft(params, checkpoint, config, task.classes, task.numbered)

    def build(config: ConfigDict) -> AdaptedModel:
        config, keys = fields.copied(config, resolved), named_keys(config.seed)
        # 2. Random parameters, with one key for each part of the model. Parameters that the checkpoint provides stay shapes.
        params = jax.eval_shape(load, shapes, keys) if shapes_only else load(unflatten(flatten(shapes) | flatten(random(keys))), keys)
        # 5. Trainable and frozen parameters.
        trainable, frozen = split(params, plan.trained)
        return AdaptedModel(
            task=task,
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
            label_smoothing=config.label_smoothing,
            notes=_notes(reason, checkpoint, config, shapes, style, recipe, task),
        )

    return build


def _notes(reason: str, checkpoint: Any, config: ConfigDict, shapes: Tree, style: Style, recipe: Recipe, task: Task) -> tuple[str, ...]:
    """Return the plan's lines about pooling, precision, checkpoint and formats that the model cannot be exported to."""
    chosen = f"pooling: {config.pooling} ({reason})" if task.pools else f"pooling: {reason}", f"precision: {config.precision}"
    formats = export.remarks(config.pooling, style, recipe, checkpoint.config["model_type"], task.pools)
    return *chosen, *checkpoint.notes(config, flatten(shapes)), *formats


def chosen_precision(requested: str) -> str:
    """Return the precision of a run: for `auto`, bfloat16 where the device has instructions for it, else float32."""
    if requested != fields.AUTO:
        return requested
    return "bfloat16" if multiplies_bfloat16() else "float32"


def _encoder(shape: dict[str, Any], config: ConfigDict, style: Style) -> nn.Module:
    return families.build(
        shape,
        precision=config.precision,
        pooler=config.pooling == style.pooling == "pooler",
        dropout=config.dropout,
        attention_dropout=config.dropout if config.attention_dropout is None else config.attention_dropout,
    )


def _tokenizer(checkpoint: Any, max_length: int, pair: bool) -> Any:
    """Return the checkpoint's tokenizer. Raise InputError if there is none, or if `max_length` leaves room for special tokens only."""
    tokenizer = checkpoint.tokenizer()
    if tokenizer is None:
        raise InputError(f"{checkpoint.folder}: no tokenizer there (tokenizer.json or vocab.txt)")
    special = tokenizer.num_special_tokens_to_add(pair=pair)
    if max_length <= special:
        raise InputError(f"max_length={max_length} leaves no room beside {special} special tokens")
    return tokenizer


def _check_length(encoder: nn.Module, config: ConfigDict, extra: int) -> None:
    room = encoder.config.max_length - extra
    if config.max_length > room:
        reserved = f" less {extra} that method={config.method} takes" if extra else ""
        raise InputError(
            f"max_length={config.max_length} is over the model's {room + extra} positions{reserved}; use --config.max_length={room}"
        )


def training_words(config: ConfigDict, data: Dataset) -> tuple[str, ...]:
    """Return the words of the training texts if the model takes its vocabulary from them, else nothing."""
    return weights.training_words(config, itertools.chain.from_iterable(data.splits["train"].texts))


def _init(encoder: nn.Module, head: nn.Module, reader: nn.Module | None, batch: Batch, keys: dict[str, jax.Array]) -> tuple:
    """Return random parameters of encoder and head, and the hidden states of all stages."""
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


# Append new names: a key is derived from the position of its name. "begin" is for `TrainingHook.init_params`.
KEYS = ("encoder", "head", "delta", "dropout", "begin")


def named_keys(seed: int) -> dict[str, jax.Array]:
    """Return a named random key for each purpose. Keys do not depend on the method, so methods are compared on the same initial head."""
    key = jax.random.key(seed)
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(KEYS)}
