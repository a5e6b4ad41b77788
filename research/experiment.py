"""From a config to everything a run needs: data, model, parameters, plan, optimizer, loss. The wiring, on one page."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from configs import common
from research import durations, models, optim, parallel, prefix, train, weights
from research.adapt import methods
from research.data import encode, sources
from research.data.batches import Batches
from research.data.examples import Dataset, Examples
from research.errors import InputError
from research.params import plan as plans
from research.params.tree import Tree, merge, split
from research.tasks import catalog, classification
from research.tasks.task import Task

KINDS = {"classification": classification}
KEYS = ("encoder", "head", "delta", "dropout")  # new names go to the end: a key depends on its place; data order has the seed itself


@dataclasses.dataclass(frozen=True)
class Model:
    """An encoder with its head on, as functions of parameters and batches; what both need to know of texts."""

    task: Task
    kind: Any
    labels: tuple[str, ...]
    encoder: nn.Module
    head: nn.Module
    tokenizer: Any
    config: ConfigDict
    trainable: Tree
    frozen: Tree
    plan: plans.Plan
    weights_sha256: str  # "" where nothing was read

    def logits(self, trainable: Tree, frozen: Tree, batch: train.Batch, key: jax.Array | None = None) -> jax.Array:
        """Logits [B, E, C]; with `key`, dropout is on from the first stage that trains.

        What lies below that stage is a function of the example alone: it runs without dropout and has no gradient.
        """
        params = merge(trainable, frozen)
        start = self.plan.frozen_stages(self.encoder.stages)
        hidden = self.below(frozen, batch, start) if start else None
        rngs = None if key is None else {"dropout": key}
        encoded = self.encoder.apply({"params": params["encoder"]}, batch, start=start, hidden=hidden, rngs=rngs)
        return self.head.apply({"params": params["head"]}, encoded, batch, rngs=rngs)

    def below(self, frozen: Tree, batch: train.Batch, stop: int) -> jax.Array:
        """Hidden states [B, L, D] float32 after the first `stop` stages, all frozen: those of the batch where it brings them."""
        if "hidden" in batch:
            return batch["hidden"].astype(jnp.float32)
        return jax.lax.stop_gradient(self.encoder.apply({"params": frozen["encoder"]}, batch, stop=stop).last)

    def loss(self, trainable: Tree, frozen: Tree, batch: train.Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The sum of the losses of a batch's examples, and the totals its metrics are made of."""
        logits = self.logits(trainable, frozen, batch, key)
        return self.kind.loss_sum(logits, batch, self.config.label_smoothing), self.kind.totals(jax.lax.stop_gradient(logits), batch)

    def tokens(self, examples: Examples) -> encode.Tokens:
        """The token ids of `examples`."""
        return encode.encode(self.tokenizer, examples, self.config.max_length)

    def eval_batch_size(self, tokens: encode.Tokens, layout: parallel.Layout) -> int:
        """Examples of an evaluation batch: as many as have about `eval_batch_tokens` on each device."""
        return max(1, round(self.config.eval_batch_tokens / tokens.lengths.mean())) * layout.multiple

    def batches(self, examples: Examples, layout: parallel.Layout, *, training: bool = False) -> Batches:
        """The batches of `examples`; without labels, the targets are zeros."""
        c, tokens = self.config, self.tokens(examples)
        targets = self.kind.targets(examples.labels or [self.labels[0]] * len(examples), self.labels)
        size, parts = (c.batch_size, c.accumulate) if training else (self.eval_batch_size(tokens, layout), 1)
        return Batches(tokens, targets, size, seed=c.seed, layout=c.packing, multiple=layout.multiple * parts)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A model and what trains it."""

    config: ConfigDict
    model: Model
    data: Dataset
    layout: parallel.Layout
    train: Batches
    dev: Batches
    total_steps: int
    rate: optax.Schedule
    tx: optax.GradientTransformation

    @property
    def dropout_key(self) -> jax.Array:
        """uint32 key data from which every step's dropout follows."""
        return jax.random.key_data(named_keys(self.config.seed)["dropout"])

    def position(self, step: int) -> dict[str, int]:
        """Where in the data the run stands after `step` updates."""
        epoch, batch = divmod(step, self.train.steps)
        return {"epoch": epoch, "batch": batch}

    def schedule_of(self, *names: str) -> Callable[[str, int], bool]:
        """`due(name, step)`: whether the config's duration `name` has come round at `step`. The last step is due for all."""
        sizes = {"batch_size": self.train.batch_size, "epoch_steps": self.train.steps, "total": self.total_steps}
        every = {name: durations.steps(self.config, name, **sizes) for name in names}
        return lambda name, step: step == self.total_steps or (every[name] > 0 and step % every[name] == 0)


def named_keys(seed: int) -> dict[str, jax.Array]:
    """One key for each use of chance. They do not depend on the method, so methods are compared on the same head."""
    key = jax.random.key(seed)
    return {name: jax.random.fold_in(key, i) for i, name in enumerate(KEYS)}


def build_model(config: ConfigDict, labels: tuple[str, ...]) -> Model:
    """The model of `config` for classes `labels`, by the order of initialisation that everything relies on."""
    task, keys = catalog.get(config.task), named_keys(config.seed)
    kind = KINDS[task.kind]
    scratch = config.weights.source == "scratch"
    checkpoint = weights.open(config.model if scratch else config.weights.source or config.model, config.weights.sha256)
    encoder = _encoder(checkpoint.config, config)
    tokenizer = checkpoint.tokenizer()
    if tokenizer is None:
        raise InputError(f"{checkpoint.folder}: no tokenizer there (tokenizer.json or vocab.txt)")
    special = tokenizer.num_special_tokens_to_add(pair=len(task.texts) == 2)
    if config.max_length <= special:
        raise InputError(f"max_length={config.max_length} leaves no room beside {special} special tokens")
    head, batch = kind.head(labels, config), _one_row()

    # 1. Shapes: what the model needs, before anything is computed.
    shapes = jax.eval_shape(functools.partial(_init, encoder, head, batch), keys)
    rules = methods.rules_for(config.method, encoder.stages, config)
    plan = plans.make(shapes, rules, config.no_decay)
    # 2. Random parameters, each part from its own key.
    params = jax.jit(functools.partial(_init, encoder, head, batch))(keys)
    # 3. Pretrained parameters over them, strictly.
    if not scratch:
        unused = ("head", "encoder/pooler")  # a pooler that is read but not wanted; a head that knew other labels
        body = {"encoder": params["encoder"]}
        params |= weights.graft(body, checkpoint.tensors(), allow_left_over=unused, source=str(checkpoint.folder))
    # 4. Re-initialised parts and deltas come here.
    # 5. What trains, and what does not.
    trainable, frozen = split(params, plan.trained)
    # 6. The optimizer's state is made from the trainable half by `train.init_state`; then resuming overrides all of it.
    return Model(
        task=task,
        kind=kind,
        labels=labels,
        encoder=encoder,
        head=head,
        tokenizer=tokenizer,
        config=config,
        trainable=trainable,
        frozen=frozen,
        plan=plan,
        weights_sha256="" if scratch else checkpoint.sha256,
    )


def _encoder(shape: dict[str, Any], config: ConfigDict) -> nn.Module:
    encoder = models.build(
        shape,
        precision=config.precision,
        pooler=config.pooling == "pooler",
        dropout=config.dropout,
        attention_dropout=config.dropout,
        remat=config.remat,
    )
    positions = encoder.config.max_position_embeddings
    if config.max_length > positions:
        raise InputError(f"max_length={config.max_length} is over the model's {positions} positions; use --config.max_length={positions}")
    return encoder


def load_data(config: ConfigDict) -> Dataset:
    """The task's examples, as `config.data` says."""
    d = config.data
    return sources.load(
        catalog.get(config.task),
        source=d.source,
        path=d.path,
        seed=d.seed,
        dev_fraction=d.dev_fraction,
        train_examples=d.train_examples,
        eval_examples=d.eval_examples,
    )


def build(config: ConfigDict) -> Experiment:
    """All of an experiment. Raises InputError on whatever of the config cannot be used."""
    common.check_ranges(config)
    layout = parallel.layout(config.parallel)
    data = load_data(config)
    model = build_model(config, data.labels)
    train_batches = model.batches(data.splits["train"], layout, training=True)
    dev_batches = model.batches(data.splits["dev"], layout)
    sizes = {"batch_size": train_batches.batch_size, "epoch_steps": train_batches.steps}
    total = durations.steps(config, "total", **sizes)
    if not total:
        raise InputError("config: the total is 0 steps; nothing would be trained")
    warmup = durations.steps(config, "warmup", total=total, least=0, **sizes)
    rate = optim.schedule(config.schedule, config.learning_rate, warmup, total)
    tx = optim.make(model.plan, config, rate)
    if config.prefix_cache_gb and total > train_batches.steps:  # examples come round again
        for batches in (train_batches, dev_batches):
            batches.hidden = prefix.states(model, batches.tokens, layout, config.prefix_cache_gb)
    return Experiment(config, model, data, layout, train_batches, dev_batches, total, rate, tx)


def _init(encoder: nn.Module, head: nn.Module, batch: train.Batch, keys: dict[str, jax.Array]) -> Tree:
    encoded, variables = encoder.init_with_output(keys["encoder"], batch)
    return {"encoder": variables["params"], "head": head.init(keys["head"], encoded, batch)["params"]}


def _one_row() -> train.Batch:
    zeros = jnp.zeros((1, 8), jnp.int32)
    place = jnp.zeros((1, 1), jnp.int32)
    return {name: zeros for name in ("tokens", "positions", "segments", "types")} | {"anchors": place, "examples": place}
