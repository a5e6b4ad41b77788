"""The training step (gradient of the mean loss, then update) and the evaluation step."""

import functools
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from research.adapt.base import Gradient
from research.parallel import layouts
from research.params.tree import Tree

Batch = dict[str, jax.Array]


class State(flax.struct.PyTreeNode):
    """Training state: everything that a checkpoint holds. It has no frozen parameters.

    `step` is the number of updates so far, int32 []. `trainable` holds the parameters that train: in the state of a phase, those that train
    in this phase; in a full state, which checkpoints hold, those that train in any phase. `opt_state` is that of one phase.
    """

    step: jax.Array
    trainable: Tree
    opt_state: optax.OptState


def init_state(trainable: Tree, tx: optax.GradientTransformation) -> State:
    """Return the state before the first step."""
    return State(jnp.zeros((), jnp.int32), trainable, tx.init(trainable))


def train_step(
    state: State,
    frozen: Tree,
    batch: Batch,
    key: jax.Array,
    *,
    gradient: Gradient,
    tx: optax.GradientTransformation,
    grad_transform: Callable[[Gradient], Gradient] = lambda gradient: gradient,
    axis: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """Do one update from a batch with leaves [A, B, ...]: A microbatches, computed one after the other.

    `gradient(trainable, frozen, part, key)` returns the gradient of the *summed* loss of a microbatch and a dict of stats, in which
    `weight` is the weight of the sum. `grad_transform` wraps the function that computes the mean gradient. Returns the new state and the
    summed stats, with `grad_norm` (global norm of the mean gradient, before clipping). The dropout key depends on the step and `key`
    (uint32 key data).
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(key), state.step)
    grads, stats = grad_transform(functools.partial(mean_gradient, gradient, axis))(state.trainable, frozen, batch, key)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    new = State(state.step + 1, optax.apply_updates(state.trainable, updates), opt_state)
    return new, {**stats, "grad_norm": optax.tree.norm(grads)}


def mean_gradient(gradient: Gradient, axis: str | None, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array):
    """Return the gradient of the mean loss over a batch, split as in `train_step`, and the stats.

    All microbatches and devices get the same key. Random values depend on it and on the number of the example, so they differ all the same
    and do not depend on the split.

    Gradients and stats are summed over microbatches and devices. Gradients are divided once by `weight`, so the number
    of microbatches or devices does not change the result.
    """

    microbatch_grad = lambda part: gradient(trainable, frozen, part, key)  # noqa: E731
    parts = batch["weights"].shape[0]
    if parts == 1:
        grads, stats = microbatch_grad(jax.tree.map(lambda x: x[0], batch))
    else:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(microbatch_grad, jax.tree.map(lambda x: x[0], batch)))
        add = lambda total, part: (jax.tree.map(jnp.add, total, microbatch_grad(part)), None)  # noqa: E731
        (grads, stats), _ = jax.lax.scan(add, zeros, batch)
    grads, stats = layouts.add_up((grads, stats), axis)
    # Not g / weight: XLA fuses a product into the code that reads it, but writes a quotient of the size of the parameters to memory.
    scale = 1.0 / stats["weight"]
    return jax.tree.map(lambda g: g * scale, grads), stats


def eval_step(trainable: Tree, frozen: Tree, batch: Batch, *, model: Any, axis: str | None = None) -> Any:
    """Return the outputs of a batch without dropout, and the stats, summed over devices, for an adapted model."""
    logits = model.logits(trainable, frozen, batch)
    return model.task.outputs(logits, batch), layouts.add_up(model.task.stats(logits, batch), axis)


def split_microbatches(batch: Batch, parts: int, layout: layouts.Layout) -> Batch:
    """Return the batch [R, ...] as microbatches [parts, R / parts, ...] for `train_step`, sharded over the devices."""
    return layout.shard(jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch), axis=1)
