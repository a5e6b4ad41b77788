"""The tiny model with something added to it, for tests of deltas: built once for a method, and moved away from where it begins."""

import dataclasses
import functools

import flax.linen as nn
import jax
import numpy as np

from research.adapt import methods
from research.adapt.adapted_model import AdaptedModel
from research.data.batches import Batches
from research.data.examples import Examples
from research.experiment import initialize
from research.params.tree import Tree, flatten, map_named, merge, split
from tests import runs


@functools.cache
def model(method: str, remat: bool = False, **options) -> AdaptedModel:
    """The tiny model (or that of the option `weights__source`) in float32 as a run builds it, but that the encoder and the head are made
    once for all methods, with noise on them: as they come, they give nearly the same logits whatever they read.
    """
    config = runs.config(**{"precision": "float32", "remat": remat, "method": method, "pooling": "pooler"} | options)
    if method == "linear_probe":
        plain = initialize.build_model(config, ("a", "b"))
        return dataclasses.replace(plain, trainable=noisy(plain.trainable, 0.15), frozen=noisy(plain.frozen, 0.15))
    plain = model("linear_probe", **{name: value for name, value in options.items() if name == "weights__source"})
    recipe = methods.recipe(plain.encoder.stages, config)
    params = initialize._with_deltas(recipe, merge(plain.trainable, plain.frozen), initialize.named_keys(0))
    plan = recipe.plan(params, config.freeze, config.no_decay)
    halves = dict(zip(("trainable", "frozen"), split(params, plan.trained), strict=True))
    return dataclasses.replace(plain, config=config, recipe=recipe, plan=plan, **halves)


def noisy(tree: Tree, by: float, under: str = "", seed: int = 1) -> Tree:
    """Parameters with noise on all whose names begin with `under`."""
    random = np.random.default_rng(seed)
    noise = lambda name, leaf: leaf + by * random.normal(size=leaf.shape).astype(np.float32) * name.startswith(under)  # noqa: E731
    return map_named(noise, tree)


def moved(model: AdaptedModel, by: float = 0.3) -> Tree:
    """The trainable half with noise on all that the deltas train."""
    return noisy(model.trainable, by, under="delta/")


def batch_of(model: AdaptedModel, layout: str = "packed", change: bool = False):
    """12 texts of 4 to 15 letters in one batch, the sixth one perhaps with other letters in it."""
    texts = tuple(("abcdefghijklmnopqrs"[: 4 + i],) for i in range(12))
    tokens = model.tokens(Examples(tuple(map(str, range(12))), texts, ()))
    if change:
        begin, end = tokens.offsets[5:7]
        begin += 1 + sum(delta.extra_tokens for delta in model.recipe.deltas)
        tokens.ids[begin : end - 1] = np.arange(5, 5 + end - begin - 1)
    return next(Batches(tokens, np.arange(12, dtype=np.int32) % 2, 12, seed=0, layout=layout).epoch(0))


def by_example(logits, batch) -> np.ndarray:
    """Logits [B, E, C] as [n, C], in the order of the examples."""
    there = batch["weights"] > 0
    return np.asarray(logits)[there][np.argsort(batch["examples"][there])]


def logits(model: AdaptedModel, trainable: Tree, batch, key=None) -> np.ndarray:
    """Logits [n, C] in the order of the examples. Not compiled: each method would be compiled anew, which takes longer than running it."""
    return by_example(model.logits(trainable, model.frozen, batch, key), batch)


def at(model: AdaptedModel, trainable: Tree, batch, path: str):
    """What the module at `path` is called with, and what comes of it with all deltas: (arguments, output), as arrays of NumPy."""
    params, seen = merge(trainable, model.frozen), {}

    def record(method, arguments, named, context):
        out = method(*arguments, **named)
        if "/".join(context.module.path) == path and context.method_name == "__call__":
            seen.update(arguments=arguments, out=out)
        return out

    with nn.intercept_methods(record), model.adapted(params, batch, None):  # the first is the outermost
        model.encoder.apply({"params": params["encoder"]}, batch)
    return jax.tree.map(np.asarray, (seen["arguments"], seen["out"]))


def parts(model: AdaptedModel, trainable: Tree, name: str):
    """(the delta's own parameters, the encoder's), flat, as arrays of NumPy."""
    params = merge(trainable, model.frozen)
    return [{name: np.asarray(leaf) for name, leaf in flatten(tree).items()} for tree in (params["delta"][name], params["encoder"])]


def far(one, other, least: float = 1e-3) -> bool:
    """Whether two arrays are so different that a test comparing them would fail."""
    return float(np.abs(np.asarray(one) - np.asarray(other)).max()) > least
