"""One training step: state, gradient of the mean loss, update; and one evaluation step."""

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
    """What changes from step to step, and all that is checkpointed: frozen parameters are not in it.

    `step` int32 scalar, the number of updates made; `trainable` the trainable half of the parameters.
    """

    step: jax.Array
    trainable: Tree
    opt_state: optax.OptState


def init_state(trainable: Tree, tx: optax.GradientTransformation) -> State:
    """The state before the first step."""
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
    """One update from a batch whose leaves are [A, B, ...]: A parts, run one after the other.

    `gradient(trainable, frozen, part, key)` is that of the *sum* of the losses of the part's examples, with a dict of totals;
    `grad_transform` may change what is done with the mean gradient's function. Returns the new state and the summed totals, with
    `count` and `grad_norm` (of the mean gradient of what trains, before clipping). The dropout key is a function of the step
    and `key` (uint32 key data).
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(key), state.step)
    grads, totals = grad_transform(functools.partial(mean_gradient, gradient, axis))(state.trainable, frozen, batch, key)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    new = State(state.step + 1, optax.apply_updates(state.trainable, updates), opt_state)
    return new, {**totals, "grad_norm": optax.tree.norm(grads)}


def mean_gradient(gradient: Gradient, axis: str | None, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array):
    """The gradient of the mean loss over a batch in parts, as in `train_step`, and the totals with `count`.

    Gradients and sums are added over parts and devices and divided once by the number of examples, so that neither the number
    of parts nor that of devices changes the result.
    """

    def wrap_microbatch_grad(part: Batch):
        grads, totals = gradient(trainable, frozen, part, key)
        return grads, {**totals, "count": part["weights"].sum()}

    parts = batch["weights"].shape[0]
    if parts == 1:
        grads, totals = wrap_microbatch_grad(jax.tree.map(lambda x: x[0], batch))
    else:
        zeros = jax.tree.map(
            lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(wrap_microbatch_grad, jax.tree.map(lambda x: x[0], batch))
        )
        add = lambda total, part: (jax.tree.map(jnp.add, total, wrap_microbatch_grad(part)), None)  # noqa: E731
        (grads, totals), _ = jax.lax.scan(add, zeros, batch)
    grads, totals = layouts.add_up((grads, totals), axis)
    part = 1.0 / totals["count"]  # a product may be done again by each of its readers, a division would be done once and kept
    return jax.tree.map(lambda g: g * part, grads), totals


def eval_step(trainable: Tree, frozen: Tree, batch: Batch, *, logits_fn: Callable, totals_fn: Callable, axis: str | None = None) -> Any:
    """Logits of one batch [B, ...] and its totals, added over devices. Deterministic."""
    logits = logits_fn(trainable, frozen, batch)
    return logits, layouts.add_up(totals_fn(logits, batch), axis)


def split_microbatches(batch: Batch, parts: int, layout: layouts.Layout) -> Batch:
    """[R, ...] -> [parts, R / parts, ...], cut for the devices: what `train_step` takes."""
    return layout.shard(jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch), axis=1)
