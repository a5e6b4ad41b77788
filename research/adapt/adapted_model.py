"""How a delta gets between a module and what it computes, without the module knowing."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from research.adapt.base import Gradient, Interceptor
from research.adapt.recipe import Recipe
from research.data import encode
from research.data.batches import Batches
from research.data.examples import Examples
from research.errors import InputError
from research.layers import remat
from research.models.output import EncoderOutput
from research.parallel import layouts
from research.params import plan as plans
from research.params.tree import Tree, flatten, merge, split
from research.tasks import metrics
from research.tasks.base import Task


def at(interceptors: Mapping[str, Interceptor]) -> Callable[..., Any]:
    """An interceptor for `flax.linen.intercept_methods` that calls `interceptors[path](method, *arguments)`.

    `path` is the module's, as in its parameters' names (`layer_0/attention/query`), with `.METHOD` where it is not `__call__`.
    """

    def intercept(method, arguments, named, context):
        path = "/".join(context.module.path)
        interceptor = interceptors.get(path if context.method_name == "__call__" else f"{path}.{context.method_name}")
        return method(*arguments, **named) if interceptor is None else interceptor(method, *arguments, **named)

    return intercept


Batch = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class AdaptedModel:
    """What trains, what does not, and what both are for. `trainable` holds the values that training begins with."""

    task: Task
    kind: Any
    labels: tuple[str, ...]
    words: tuple[str, ...]  # the vocabulary, where the training texts gave it
    encoder: nn.Module
    head: nn.Module
    tokenizer: Any
    config: ConfigDict
    recipe: Recipe
    trainable: Tree
    frozen: Tree
    plan: plans.Plan
    widths: tuple[int, ...]  # how many features each stage's states have
    weights_sha256: str  # "" where nothing was read
    notes: tuple[str, ...] = ()  # lines of the plan about the pooling and about where the parameters come from
    label_smoothing: float | jax.Array = 0.0
    statistics: Tree = dataclasses.field(default_factory=dict)  # what regularisers know of the training data, by their names

    def logits(
        self, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array | None = None, embedding_noise: jax.Array | None = None
    ) -> jax.Array:
        """Logits [B, E, C]; with `key`, dropout is on from the first stage that trains.

        What lies below that stage is a function of the example alone: it runs without dropout and has no gradient. `embedding_noise`
        [B, L, D] is added to the states that enter the first layer above it (or the first layer, where the embeddings train).
        """
        params, total = merge(trainable, frozen), len(self.encoder.stages)
        start = closed = self.plan.frozen_stages(self.encoder.stages)
        numbers, read, hidden = self.reads(closed), [], None
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
            states = dict(zip((*numbers, *range(closed, total)), (*read[:-1], *encoded.stages), strict=True))
            encoded = encoded.replace(stages=tuple(states[i] for i in self.recipe.reader.stages(total)))
        return self.head.apply({"params": params["head"]}, encoded, batch, rngs=rngs)

    def _from(self, apply: Callable[..., EncoderOutput], start: int, hidden: jax.Array | None) -> EncoderOutput:
        """What the encoder gives from stage `start` on. With `remat` only what enters a layer is kept for the backward pass, but for
        the last layer, whose gradient comes at once."""
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
        """Within it the encoder computes what the deltas make of it."""
        with contextlib.ExitStack() as stack:
            for delta in self.recipe.deltas:  # Flax puts the interceptor that it was given first outermost
                own, encoder = flatten(params["delta"][delta.name]), flatten(params["encoder"])
                interceptors = delta.interceptors(own, encoder, batch, key, self.encoder.precision)
                stack.enter_context(nn.intercept_methods(at(interceptors)))
            yield

    @property
    def embedding_noise_width(self) -> int:
        """Features of the states that a nudge is added to (see `logits`)."""
        return self.widths[max(self.plan.frozen_stages(self.encoder.stages), 1) - 1]

    def reads(self, stop: int) -> tuple[int, ...]:
        """Which of the first `stop` stages' outputs are used where these are frozen, ascending: what the reader wants, and the last
        where something follows on it."""
        total, reader = len(self.encoder.stages), self.recipe.reader
        wanted = (total - 1,) if reader is None else reader.stages(total)
        onward = {stop - 1} if 0 < stop < total else set()
        return tuple(sorted({i for i in wanted if i < stop} | onward))

    def below(self, frozen: Tree, batch: Batch, stop: int) -> jax.Array:
        """Hidden states [B, L, D of all] float32 after the first `stop` stages, all frozen, of those stages that are read: the batch's
        own where it brings them."""
        if "hidden" in batch:
            return batch["hidden"].astype(jnp.float32)
        stages = self.encoder.apply({"params": frozen["encoder"]}, batch, stop=stop).stages
        return jax.lax.stop_gradient(jnp.concatenate([stages[i] for i in self.reads(stop)], axis=-1))

    def loss(
        self, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array, embedding_noise: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The sum of the losses of a batch's examples, and the totals its metrics are made of."""
        for hook in self.recipe.hooks:
            trainable = hook.effective_params(trainable, frozen, key)
        logits = self.logits(trainable, frozen, batch, key, embedding_noise)
        loss = self.kind.loss_sum(logits, batch, self.label_smoothing)
        for hook in self.recipe.hooks:
            loss += hook.extra_loss(self, trainable, frozen, batch, key, logits)
        return loss, self.kind.totals(jax.lax.stop_gradient(logits), batch)

    @property
    def gradient(self) -> Gradient:
        """The gradient of `loss` for the trainable half."""
        return functools.reduce(lambda g, r: r.wrap_microbatch_grad(self, g), self.recipe.hooks, jax.grad(self.loss, has_aux=True))

    def eval_params(self, trainable: Tree, opt_state: Any) -> Tree:
        """The parameters that are evaluated and kept, of a state."""
        return functools.reduce(lambda kept, r: r.eval_params(kept, opt_state), self.recipe.hooks, trainable)

    @property
    def device_constants(self) -> Tree:
        """What a step is given beside what trains: the frozen half, and what regularisers ask for: where the trainable parameters began,
        and what was found out before training."""
        anchored = any(hook.anchored for hook in self.recipe.hooks)
        return {**self.frozen, **({"anchor": jax.tree.map(jnp.array, self.trainable)} if anchored else {}), **self.statistics}

    @property
    def without_parameters(self) -> "AdaptedModel":
        """The model as programs are made of it: it holds no arrays."""
        return dataclasses.replace(self, trainable={}, frozen={}, statistics={})

    def at(self, plan: plans.Plan, values: Tree) -> "AdaptedModel":
        """The model in a phase: `values` are those of all that trains at some time, `plan` says what of it trains now."""
        trainable, closed = split(values, plan.trained)
        return dataclasses.replace(self, plan=plan, trainable=trainable, frozen=merge(self.frozen, closed))

    def tokens(self, examples: Examples, keep: bool = True) -> encode.Tokens:
        """The token ids of `examples`, with places for what the method puts before a text. `keep`: whether they are kept on disk.

        Raises InputError where the tokenizer tells more types of tokens apart than the model."""
        c = self.config
        tokens = encode.encode(self.tokenizer, examples, c.max_length, c.truncation, c.truncation_head, keep)
        types = getattr(self.encoder.config, "type_vocab_size", 0)
        if types and tokens.types.max(initial=0) >= types:
            raise InputError(f"the tokenizer gives tokens of type {tokens.types.max()}, but the model has {types}; they are of two models")
        first = sum(delta.first_position for delta in self.recipe.deltas)
        return dataclasses.replace(tokens.with_places(self.extra_tokens), first_position=first)

    @property
    def positive(self) -> str | None:
        """The class that precision, recall and f1 are of; None where they are means over the classes."""
        return metrics.positive_class(self.labels, self.task.positive)

    @property
    def metric_title(self) -> str:
        """The selecting metric as people read it: `f1 of 'spam'`."""
        return metrics.title(self.task.metric, self.positive)

    def scores(self, totals: dict[str, np.ndarray]) -> dict[str, float]:
        """Return the metrics of added-up totals."""
        return self.kind.scores(totals, None if self.positive is None else self.labels.index(self.positive))

    @property
    def learnt(self) -> dict[str, list[str]]:
        """What of the training data it takes to build the model again, beside its parameters: JSON-able, for checkpoints."""
        return {"labels": list(self.labels), "words": list(self.words)}

    @property
    def extra_tokens(self) -> int:
        """Places that the method adds to each example."""
        return sum(delta.extra_tokens for delta in self.recipe.deltas)

    def eval_batch_size(self, tokens: encode.Tokens, layout: layouts.Layout) -> int:
        """Examples of an evaluation batch: at most about as many as have `eval_batch_tokens` on each device, the same in all batches."""
        most = max(1, round(self.config.eval_batch_tokens / tokens.lengths.mean())) * layout.multiple
        batches = math.ceil(len(tokens) / most)
        return math.ceil(len(tokens) / batches / layout.multiple) * layout.multiple

    def batches(self, examples: Examples, layout: layouts.Layout, *, training: bool = False, keep: bool = True) -> Batches:
        """The batches of `examples`; without labels, the targets are zeros. `keep`: whether their tokens are kept on disk."""
        c, tokens = self.config, self.tokens(examples, keep)
        targets = self.kind.targets(examples.labels or [self.labels[0]] * len(examples), self.labels)
        size, parts, seed = (c.batch_size, c.accumulate, c.seed) if training else (self.eval_batch_size(tokens, layout), 1, 0)
        return Batches(tokens, targets, size, seed=seed, layout=c.packing, multiple=layout.multiple * parts)


def one_row() -> Batch:
    """A batch of one row with one example of 8 tokens, for shapes."""
    zeros, place = jnp.zeros((1, 8), jnp.int32), jnp.zeros((1, 1), jnp.int32)
    return {name: zeros for name in ("tokens", "positions", "segments", "types")} | {"example_starts": place, "examples": place}
