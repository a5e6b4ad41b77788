"""Tiny models with a method, for tests of deltas: built once for each method, with noise on the parameters."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np

from research.adapt import methods
from research.adapt.adapted_model import AdaptedModel
from research.data import pipeline
from research.data.batches import Batches
from research.data.examples import Examples
from research.experiment import initialize
from research.params.tree import Tree, flatten, map_named, merge, split
from research.tasks.base import Column
from tests import runs


@functools.cache
def model(method: str, remat: bool = False, **options) -> AdaptedModel:
    """Return the tiny model (or that of the option `weights__source`) in float32, as a run builds it.

    Unlike in a run, all methods share one encoder and head with noise on the parameters: without noise, the logits are nearly equal for
    all inputs.
    """
    config = runs.config(**{"precision": "float32", "remat": remat, "method": method, "pooling": "pooler"} | options)
    if method == "linear_probe":
        base = runs.build_model(config, ("a", "b"))
        return dataclasses.replace(base, trainable=noisy(base.trainable, 0.15), frozen=noisy(base.frozen, 0.15))
    base = model("linear_probe", **{name: value for name, value in options.items() if name == "weights__source"})
    recipe = methods.recipe(base.encoder.stages, config)
    params = initialize._with_deltas(recipe, merge(base.trainable, base.frozen), initialize.named_keys(0))
    plan = recipe.plan(params, config.freeze, config.no_decay)
    halves = dict(zip(("trainable", "frozen"), split(params, plan.trained), strict=True))
    return dataclasses.replace(base, config=config, recipe=recipe, plan=plan, **halves)


def noisy(tree: Tree, by: float, under: str = "", seed: int = 1) -> Tree:
    """Return parameters with normal noise of deviation `by` on all whose names begin with `under`."""
    random = np.random.default_rng(seed)
    noise = lambda name, leaf: leaf + by * random.normal(size=leaf.shape).astype(np.float32) * name.startswith(under)  # noqa: E731
    return map_named(noise, tree)


def moved(model: AdaptedModel, by: float = 0.3) -> Tree:
    """Return the trainable parameters with noise on those of the deltas."""
    return noisy(model.trainable, by, under="delta/")


def batch_of(model: AdaptedModel, layout: str = "packed", change: bool = False):
    """Return one batch of 12 texts of 4 to 15 letters. With `change`, the sixth text has other letters."""
    texts = tuple(("abcdefghijklmnopqrs"[: 4 + i],) for i in range(12))
    tokens = pipeline.tokens(model, Examples(tuple(map(str, range(12))), texts, ()))
    if change:
        begin, end = tokens.offsets[5:7]
        begin += 1 + sum(delta.extra_tokens for delta in model.recipe.deltas)
        tokens.ids[begin : end - 1] = np.arange(5, 5 + end - begin - 1)
    return next(Batches(tokens, {"labels": Column("example", np.arange(12, dtype=np.int32) % 2)}, 12, seed=0, layout=layout).epoch(0))


def by_example(logits, batch) -> np.ndarray:
    """Return logits [B, E, C] as [n, C], in the order of the examples."""
    is_example = batch["weights"] > 0
    return np.asarray(logits)[is_example][np.argsort(batch["examples"][is_example])]


def logits(model: AdaptedModel, trainable: Tree, batch, key=None) -> np.ndarray:
    """Return logits [n, C] in the order of the examples. Nothing is compiled: compiling each method takes longer than running it."""
    return by_example(model.logits(trainable, model.frozen, batch, key), batch)


def at(model: AdaptedModel, trainable: Tree, batch, path: str):
    """Return (arguments, output) of the module at `path` as NumPy arrays: arguments before, and output after, all deltas."""
    params, seen = merge(trainable, model.frozen), {}

    def record(method, arguments, named, context):
        out = method(*arguments, **named)
        if "/".join(context.module.path) == path and context.method_name == "__call__":
            seen.update(arguments=arguments, out=out)
        return out

    with nn.intercept_methods(record), model.adapted(params, batch, None):  # the first interceptor is the outermost
        model.encoder.apply({"params": params["encoder"]}, batch)
    return jax.tree.map(np.asarray, (seen["arguments"], seen["out"]))


def parts(model: AdaptedModel, trainable: Tree, name: str):
    """Return (parameters of the delta `name`, parameters of the encoder), flat, as NumPy arrays."""
    params = merge(trainable, model.frozen)
    return [{name: np.asarray(leaf) for name, leaf in flatten(tree).items()} for tree in (params["delta"][name], params["encoder"])]


def far(one, other, least: float = 1e-3) -> bool:
    """Return whether two arrays differ by more than `least`, so that a comparison of them in a test would fail."""
    return float(np.abs(np.asarray(one) - np.asarray(other)).max()) > least
