"""Methods that hold the pretrained parameters where they are, or shake them before training.

Letters: w a trainable parameter, w0 the value that it began with, p a probability.
"""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from research.adapt.base import Gradient, Method, TrainingHook
from research.adapt.freezing import top_layers
from research.adapt.targets import keys_of
from research.errors import InputError, nearest
from research.layers.dropout import dropout, mix
from research.params import rules
from research.params.tree import Tree, flatten, map_named, unflatten

Stages = tuple[str, ...]


def check(option: str, value: float, allowed: bool, wanted: str) -> None:
    """Raises InputError, naming the option and what it must be, unless `allowed`."""
    if not allowed:
        raise InputError(f"{option}={value:g} must be {wanted}")


def dropped(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Dropout of an array of any shape, a function of the key and of where in it an element stands."""
    flat = x.reshape(-1, x.shape[-1] if x.ndim else 1)
    interceptor = jax.random.bits(key, (), jnp.uint32)
    rows, columns = (jnp.arange(size, dtype=jnp.uint32) for size in flat.shape)
    return dropout(flat, mix(rows + interceptor)[:, None], columns[None], rate).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class L2SP(TrainingHook):
    """alpha / 2 * ||w - w0||^2 over the encoder's parameters + beta / 2 * ||w||^2 over the new ones (head, delta), but for those of
    a delta that change nothing elsewhere than at 0."""

    alpha: float
    beta: float
    name = "l2sp"
    anchored = True

    def extra_loss(self, model, trainable, frozen, batch, key, logits):
        began, pulled, new = flatten(frozen["anchor"]), 0.0, 0.0
        for name, w in flatten(trainable).items():
            if name.startswith("encoder/"):
                pulled += jnp.square(w - began[name]).sum()
            elif not any(rules.matches(pattern, name) for pattern in model.recipe.no_decay_pattern.values()):
                new += jnp.square(w).sum()
        # The loss is a sum over examples that is divided by their number later: so is this, and the mean gets it once.
        return batch["weights"].sum() * (self.alpha / 2 * pulled + self.beta / 2 * new)


def l2sp(stages: Stages, config: Any) -> Method:
    """The loss pulls what was pretrained to where it began, and what is new to 0 (Li et al. 2018, equation 4).

    mean loss + alpha / 2 * ||w - w0||^2 + beta / 2 * ||w_new||^2. The paper holds beta at 0.01 and chooses alpha for each task on
    held-out data; here alpha is 0.1. `weight_decay` goes on pulling everything to 0: for the paper's method set it to 0. Costs a copy
    of what trains.
    """
    o = config.l2sp
    check("l2sp.alpha", o.alpha, o.alpha >= 0, "at least 0")
    check("l2sp.beta", o.beta, o.beta >= 0, "at least 0")
    return Method(hooks=(L2SP(o.alpha, o.beta),))


@dataclasses.dataclass(frozen=True)
class Mixout(TrainingHook):
    """w0 + dropout(w - w0) for the encoder's kernels, where the loss is computed: each weight is w0 with probability p."""

    p: float
    name = "mixout"
    anchored = True
    needs = "encoder/.*/kernel"

    def effective_params(self, trainable, frozen, key):
        began, leaves = flatten(frozen["anchor"]), flatten(trainable)
        mixed = [name for name, w in leaves.items() if name.startswith("encoder/") and name.endswith("/kernel") and w.ndim == 2]
        for name, own in keys_of(key, [f"mixout/{name}" for name in mixed]).items():
            name = name.removeprefix("mixout/")
            leaves[name] = began[name] + dropped(leaves[name] - began[name], self.p, own)
        return unflatten(leaves)


def mixout(stages: Stages, config: Any) -> Method:
    """Each weight of a kernel is replaced by its pretrained value with probability `mixout_p` in each step (Lee et al. 2020).

    (M * w + (1 - M) * w0 - p * w0) / (1 - p) with M ~ Bernoulli(1 - p), element by element as in the authors' code: w is the expectation.
    The paper tries p of 0.7, 0.8 and 0.9; 0.9 here. The head is not mixed. Costs a copy of what trains, and a pass over the kernels.
    """
    check("mixout_p", config.mixout_p, 0 <= config.mixout_p < 1, "at least 0 and less than 1")
    return Method(hooks=(Mixout(config.mixout_p),))


KINDS = ("F", "D")


@dataclasses.dataclass(frozen=True)
class ChildTuning(TrainingHook):
    """Only a part p of the encoder's elements has a gradient. "F": others in each step; "D": those of the most Fisher information."""

    kind: str
    p: float
    batches: int
    name = "child_tuning"
    needs = "encoder"

    def calibrate(self, gradients: Iterator[Tree]) -> Tree:
        """The mask of kind D, by name: bool, in the shapes of the encoder's parameters that train."""
        if self.kind == "F":
            return {}
        add = jax.jit(lambda total, grads: jax.tree.map(lambda t, g: t + jnp.square(g), total, grads), donate_argnums=0)
        total = None
        for grads in itertools.islice(gradients, self.batches):
            grads = {"encoder": grads["encoder"]}
            total = add(jax.tree.map(jnp.zeros_like, grads) if total is None else total, grads)
        information = {name: np.asarray(x) for name, x in flatten(total).items()}
        every = np.concatenate([x.ravel() for x in information.values()])
        kept = max(round(self.p * every.size), 1)
        least = np.partition(every, -kept)[-kept]
        return unflatten({name: x >= least for name, x in information.items()})

    def wrap_grad(self, gradient: Gradient) -> Gradient:
        def masked(trainable: Tree, frozen: Tree, batch: Any, key: jax.Array):
            grads, totals = gradient(trainable, frozen, batch, key)
            fixed = flatten(frozen[self.name]) if self.kind == "D" else {}

            def of(name: str, g: jax.Array) -> jax.Array:
                if not name.startswith("encoder/"):
                    return g
                own = f"{self.name}/{name}"
                return jnp.where(fixed[name], g, 0.0) if fixed else dropped(g, 1.0 - self.p, keys_of(key, [own])[own])

            return map_named(of, grads), totals

        return masked


def child_tuning(stages: Stages, config: Any) -> Method:
    """Only a child network of the encoder has a gradient (Xu et al. 2021). The head always trains; weight decay spares nothing.

    kind F: g * M / p with M ~ Bernoulli(p), drawn anew for each element in each step (section 2.2). kind D: g * M, where M is fixed
    before training: the fraction p of all the encoder's elements with the largest Fisher information (section 2.3), here as in the
    authors' code the mean of squared gradients of batches, at the parameters that training begins with, without dropout, over the first
    `child_tuning.batches` batches (100; the paper takes an epoch). p is 0.3, in the range of both (0.2 to 0.4, 0.1 to 0.3).
    F costs a pass over the gradient, D those batches once and a byte for each element. The mask comes before clipping.
    """
    o = config.child_tuning
    if o.kind not in KINDS:
        raise InputError(f"child_tuning.kind {o.kind!r}: {nearest(o.kind, KINDS)}")
    check("child_tuning.p", o.p, 0 < o.p <= 1, "over 0 and at most 1")
    check("child_tuning.batches", o.batches, o.batches >= 1, "at least 1")
    return Method(hooks=(ChildTuning(o.kind, o.p, o.batches),))


@dataclasses.dataclass(frozen=True)
class NoisyTune(TrainingHook):
    """w + U(-scale / 2, scale / 2) * std(w) for each matrix of the encoder, once, before training."""

    scale: float
    name = "noisytune"

    def init_params(self, params, fresh, key):
        def of(name: str, w: jax.Array) -> jax.Array:
            if not name.startswith("encoder/") or w.ndim < 2:
                return w
            own = f"{self.name}/{name}"
            noise = jax.random.uniform(keys_of(key, [own])[own], w.shape, w.dtype, -self.scale / 2, self.scale / 2)
            return w + noise * jnp.std(w)

        return map_named(of, params)


def noisytune(stages: Stages, config: Any) -> Method:
    """Noise in proportion to each pretrained matrix's spread, once before training (Wu et al. 2022, equation 1).

    w + U(-lambda / 2, lambda / 2) * std(w), lambda = `noisytune_lambda`, 0.15 as in the paper. What is frozen gets it too. Costs nothing.
    """
    check("noisytune_lambda", config.noisytune_lambda, config.noisytune_lambda >= 0, "at least 0")
    return Method(hooks=(NoisyTune(config.noisytune_lambda),))


@dataclasses.dataclass(frozen=True)
class ReinitTop(TrainingHook):
    """The stages called `top`, and the pooler, begin with random values."""

    top: Stages
    name = "reinit_top"
    needs_all = True

    @property
    def needs(self) -> str:
        """Random kernels that stay frozen would be of no use."""
        return f"encoder/({'|'.join(self.top)})/.*kernel"

    @property
    def reinit(self) -> str:
        """All of them."""
        return f"encoder/({'|'.join(self.top)}|pooler)/.*"

    def init_params(self, params, fresh, key):
        reinit = {name: fresh["encoder"][name] for name in (*self.top, "pooler") if name in params["encoder"]}
        return {**params, "encoder": {**params["encoder"], **reinit}}


def reinit_top(stages: Stages, config: Any) -> Method:
    """The top `reinit_layers` layers and the pooler begin with random values, as before pretraining (Zhang et al. 2021, section 5).

    The paper chooses 1 to 6 of BERT-large's 24 layers on held-out data; 1 here. Costs nothing. Raises InputError when there are fewer
    layers.
    """
    return Method(hooks=(ReinitTop(top_layers(stages, "reinit_layers", config.reinit_layers)),))
