"""A toy that trains in milliseconds: a few dense layers over made-up features, with what a run needs around it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from research.adapt import methods
from research.config import fields
from research.parallel.layouts import Layout
from research.params.tree import merge, split
from research.tasks.classification import Classification
from research.train.optimizer import make
from research.train.step import init_state, split_microbatches, train_step

ROWS, F, CLASSES, DEPTH = 32, 12, 3, 4
TASK = Classification("toy")
STAGES = tuple(f"layer_{i}" for i in range(DEPTH))


def params():
    rng = np.random.default_rng(0)
    dense = lambda m, n: {"kernel": rng.normal(0, m**-0.5, (m, n)).astype(np.float32), "bias": np.zeros(n, np.float32)}  # noqa: E731
    return {"encoder": {stage: dense(F, F) for stage in STAGES}, "head": dense(F, CLASSES)}


def features(encoder, x):
    for stage in STAGES:
        x = jnp.tanh(jnp.einsum("bef,fg->beg", x, encoder[stage]["kernel"]) + encoder[stage]["bias"][None, None])
    return x


def loss_fn(trainable, frozen, part, key, rate=0.3):
    """Return the loss; dropout depends on the key and the example, as in the models."""
    both = merge(trainable, frozen)
    x = features(both["encoder"], part["x"])
    if rate:
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(part["examples"].ravel())
        keep = jax.vmap(lambda k: jax.random.bernoulli(k, 1 - rate, (F,)))(keys).reshape(x.shape)
        x = jnp.where(keep, x / (1 - rate), 0.0)
    logits = jnp.einsum("bef,fc->bec", x, both["head"]["kernel"]) + both["head"]["bias"][None, None]
    return TASK.loss(logits, part)[0], TASK.stats(logits, part)


undropped = functools.partial(loss_fn, rate=0.0)


def batches(count=5, empty=0.5):
    """Return batches whose examples are all at the end, so that microbatches and devices have unequal numbers of them."""
    rng = np.random.default_rng(1)
    there = rng.random((count, ROWS)) >= empty * np.linspace(1.8, 0.2, ROWS)
    for i in range(count):
        x = rng.normal(size=(ROWS, 1, F)).astype(np.float32)
        labels, examples = rng.integers(0, CLASSES, (ROWS, 1)).astype(np.int32), np.arange(i * ROWS, (i + 1) * ROWS, dtype=np.int32)
        yield {"x": x, "labels": labels, "examples": examples[:, None], "weights": there[i, :, None].astype(np.float32)}


def setup(method="full", optimizer="adamw", rate=0.01, clip=1.0):
    """Return trainable and frozen parameters and the optimizer, made as a run makes them."""
    c = fields.override(fields.base("imdb", fields.words("")), {"optimizer": optimizer, "clip_norm": clip, "momentum": 0.0})
    c.weight_decay = 0.01 if optimizer == "adamw" else 0.0
    c.method = method
    plan = methods.recipe(STAGES, c).plan(params(), "", {"bias": "bias"})
    return *split(params(), plan.trained), make(plan, c, {"learning_rate": rate, "weight_decay": c.weight_decay})


@functools.cache
def program(devices, parts, loss, options):
    """Return a compiled step for one shape of batch, cached because the tests' time goes into compiling."""
    tx = setup(**dict(options))[2]
    return tx, Layout(devices).compile(functools.partial(train_step, gradient=jax.grad(loss, has_aux=True), tx=tx), donate=(0,))


def run(devices=0, parts=1, loss=loss_fn, seed=0, data=None, **options):
    """Return the last state and the stats of all steps, computed as in a run."""
    layout, (trainable, frozen, _) = Layout(devices), setup(**options)
    tx, step = program(devices, parts, loss, tuple(options.items()))
    state, frozen = layout.replicate(init_state(trainable, tx)), layout.replicate(frozen)
    key, seen = layout.replicate(jax.random.key_data(jax.random.key(seed))), []
    for batch in data or batches():
        state, stats = step(state, frozen, split_microbatches(batch, parts, layout), key)
        seen.append(jax.tree.map(np.asarray, layout.first(stats)))
    assert step.compilations == 1
    return jax.tree.map(np.asarray, layout.first(state)), seen


def distance(one, other):
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True))
