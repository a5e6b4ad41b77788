"""The adapted model: an encoder and a head, the parameters added by fine-tuning methods, and which parameters train."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from research.adapt.base import Gradient, Interceptor
from research.adapt.recipe import Recipe
from research.layers import remat
from research.models.output import EncoderOutput
from research.params import plan as plans
from research.params.tree import Tree, flatten, merge, split
from research.tasks.base import Task


def at(interceptors: Mapping[str, Interceptor]) -> Callable[..., Any]:
    """Return a function for `flax.linen.intercept_methods` that calls `interceptors[path](method, *arguments)`.

    `path` is the module path as in parameter names (`layer_0/attention/query`), with `.METHOD` for a method other than `__call__`.
    """

    def intercept(method, arguments, named, context):
        path = "/".join(context.module.path)
        interceptor = interceptors.get(path if context.method_name == "__call__" else f"{path}.{context.method_name}")
        return method(*arguments, **named) if interceptor is None else interceptor(method, *arguments, **named)

    return intercept


Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class AdaptedModel:
    """A model with its trainable and frozen parameters, task, tokenizer and methods. `trainable` holds the initial values."""

    task: Task  # fitted to the training labels
    words: tuple[str, ...]  # the vocabulary, if it was built from the training texts
    encoder: nn.Module
    head: nn.Module
    tokenizer: Any
    config: ConfigDict
    recipe: Recipe
    trainable: Tree
    frozen: Tree
    plan: plans.Plan
    widths: tuple[int, ...]  # number of features of the hidden states of each stage
    weights_sha256: str  # "" if no weights were read
    notes: tuple[str, ...] = ()  # lines for the printed plan: the pooling and the source of the parameters
    label_smoothing: float | jax.Array = 0.0
    statistics: Tree = dataclasses.field(default_factory=dict)  # results of `TrainingHook.calibrate`, by hook name

    def logits(
        self, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array | None = None, embedding_noise: jax.Array | None = None
    ) -> jax.Array:
        """Return logits [B, E, C]. With `key`, dropout is on from the first trainable stage.

        The frozen stages below it run without dropout and gradient, so their output depends only on the example. `embedding_noise`
        [B, L, D] is added to the input of the first layer that is not among these stages.
        """
        params, total = merge(trainable, frozen), len(self.encoder.stages)
        start = below = self.plan.frozen_stages(self.encoder.stages)
        numbers, read, hidden = self.reads(below), [], None
        rngs = None if key is None else {"dropout": key}
        apply = functools.partial(self.encoder.apply, {"params": params["encoder"]}, batch, rngs=rngs)
        if start:
            cuts = np.cumsum([self.widths[i] for i in numbers[:-1]], dtype=int)
            read = jnp.split(self.below(frozen, batch, start), cuts, axis=-1)
            hidden = read[-1]
        with self.adapted(params, batch, key):
            if embedding_noise is not None:
                hidden, start = embedding_noise + (hidden if start else apply(stop=1).last), max(start, 1)
            encoded = self._from(apply, start, hidden)
        if self.recipe.reader is not None:
            states = dict(zip((*numbers, *range(below, total)), (*read[:-1], *encoded.stages), strict=True))
            encoded = encoded.replace(stages=tuple(states[i] for i in self.recipe.reader.stages(total)))
        return self.head.apply({"params": params["head"]}, encoded, batch, rngs=rngs)

    def _from(self, apply: Callable[..., EncoderOutput], start: int, hidden: jax.Array | None) -> EncoderOutput:
        """Return the encoder output from stage `start` on. With `remat`, only the inputs of layers are stored for the backward pass,
        except for the last layer, whose gradient is computed first."""
        states = []
        if self.config.remat:
            hidden, start = (hidden, start) if start else (apply(stop=1).last, 1)
            for stage in range(start, len(self.encoder.stages) - 1):
                states.append(hidden)
                layer = lambda x, stage=stage: apply(start=stage, hidden=x, stop=stage + 1).last  # noqa: E731
                hidden, start = remat.rematerialize(layer, hidden), stage + 1
        encoded = apply(start=start, hidden=hidden)
        return encoded.replace(stages=(*states, *encoded.stages))

    @contextlib.contextmanager
    def adapted(self, params: Tree, batch: Batch, key: jax.Array | None) -> Iterator[None]:
        """Apply the deltas to the encoder within this context."""
        with contextlib.ExitStack() as stack:
            for delta in self.recipe.deltas:  # the first interceptor entered is the outermost in Flax
                delta_params, encoder = flatten(params["delta"][delta.name]), flatten(params["encoder"])
                interceptors = delta.interceptors(delta_params, encoder, batch, key, self.encoder.precision)
                stack.enter_context(nn.intercept_methods(at(interceptors)))
            yield

    @property
    def embedding_noise_width(self) -> int:
        """Return D of the `embedding_noise` that `logits` takes."""
        return self.widths[max(self.plan.frozen_stages(self.encoder.stages), 1) - 1]

    def reads(self, stop: int) -> tuple[int, ...]:
        """Return which of the first `stop` stages, all frozen, have outputs that are used, ascending: the stages of the reader, and the
        last one if another stage follows."""
        total, reader = len(self.encoder.stages), self.recipe.reader
        read = (total - 1,) if reader is None else reader.stages(total)
        next_input = {stop - 1} if 0 < stop < total else set()
        return tuple(sorted({i for i in read if i < stop} | next_input))

    def below(self, frozen: Tree, batch: Batch, stop: int) -> jax.Array:
        """Return hidden states [B, L, D] float32 of the first `stop` stages, all frozen: the concatenated outputs of the stages in
        `reads(stop)`. If the batch has cached states (`hidden`), return those."""
        if "hidden" in batch:
            return batch["hidden"].astype(jnp.float32)
        stages = self.encoder.apply({"params": frozen["encoder"]}, batch, stop=stop).stages
        return jax.lax.stop_gradient(jnp.concatenate([stages[i] for i in self.reads(stop)], axis=-1))

    def loss(
        self, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array, embedding_noise: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the summed loss of a batch and the stats for its metrics, with the `weight` of the sum."""
        hook = self.recipe.hook
        trainable = hook.effective_params(trainable, frozen, key)
        logits = self.logits(trainable, frozen, batch, key, embedding_noise)
        loss, _ = self.task.loss(logits, batch, self.label_smoothing)
        loss += hook.extra_loss(self, trainable, frozen, batch, key, logits)
        return loss, self.task.stats(jax.lax.stop_gradient(logits), batch)

    @property
    def gradient(self) -> Gradient:
        """Return the gradient of `loss` with respect to the trainable parameters, as wrapped by the hooks."""
        return self.recipe.hook.wrap_microbatch_grad(self, jax.grad(self.loss, has_aux=True))

    def eval_params(self, trainable: Tree, opt_state: Any) -> Tree:
        """Return the parameters to evaluate and to save as the best, from the parameters and optimizer state of a training state."""
        return self.recipe.hook.eval_params(trainable, opt_state)

    @property
    def device_constants(self) -> Tree:
        """Return the constant arguments of a step: the frozen parameters, the hooks' statistics, and the initial trainable parameters
        if a hook needs them."""
        anchor = {"anchor": jax.tree.map(jnp.array, self.trainable)} if self.recipe.hook.anchored else {}
        return {**self.frozen, **anchor, **self.statistics}

    @property
    def without_parameters(self) -> "AdaptedModel":
        """Return the model without arrays, for building compiled programs."""
        return dataclasses.replace(self, trainable={}, frozen={}, statistics={})

    def at(self, plan: plans.Plan, values: Tree) -> "AdaptedModel":
        """Return the model in the phase with plan `plan`. `values` holds all parameters that train in any phase."""
        trainable, closed = split(values, plan.trained)
        return dataclasses.replace(self, plan=plan, trainable=trainable, frozen=merge(self.frozen, closed))

    @property
    def learnt(self) -> dict[str, list[str]]:
        """Return what rebuilding the model needs from the training data besides parameters: JSON-able, for checkpoints."""
        return self.task.learnt | {"words": list(self.words)}

    @property
    def extra_tokens(self) -> int:
        """Return the number of tokens that the method inserts into each example."""
        return sum(delta.extra_tokens for delta in self.recipe.deltas)

    @property
    def first_position(self) -> int:
        """Return the position of each example's first token: how many positions the method uses before it."""
        return sum(delta.first_position for delta in self.recipe.deltas)
