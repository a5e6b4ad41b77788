"""Training hooks that keep parameters close to their pretrained values, mask gradients, or change parameters before training.

Letters: w a trainable parameter, w0 its initial value, p a probability.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
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
    """Raise InputError unless `allowed`, with the option, its value and the wanted range."""
    if not allowed:
        raise InputError(f"{option}={value:g} must be {wanted}")


def dropped(x: jax.Array, rate: float, key: jax.Array) -> jax.Array:
    """Return an array of any shape after dropout. The mask is a function of the key and of each element's index."""
    flat = x.reshape(-1, x.shape[-1] if x.ndim else 1)
    salt = jax.random.bits(key, (), jnp.uint32)
    rows, columns = (jnp.arange(size, dtype=jnp.uint32) for size in flat.shape)
    return dropout(flat, mix(rows + salt)[:, None], columns[None], rate).reshape(x.shape)


@dataclasses.dataclass(frozen=True)
class L2SP(TrainingHook):
    """Adds alpha / 2 * ||w - w0||^2 over the encoder's parameters and beta / 2 * ||w||^2 over the new ones (head, delta).

    Parameters that match the `no_decay_pattern` of a delta are left out, because 0 is not the value at which they have no effect.
    """

    alpha: float
    beta: float
    name = "l2sp"
    anchored = True

    def extra_loss(self, model, trainable, frozen, batch, key, logits):
        initial, pretrained_sum, new_sum = flatten(frozen["anchor"]), 0.0, 0.0
        for name, w in flatten(trainable).items():
            if name.startswith("encoder/"):
                pretrained_sum += jnp.square(w - initial[name]).sum()
            elif not any(rules.matches(pattern, name) for pattern in model.recipe.no_decay_pattern.values()):
                new_sum += jnp.square(w).sum()
        # The summed loss is divided by its weight later: the product with it adds the penalty once to the mean loss.
        _, weight = model.task.loss(logits, batch)
        return weight * (self.alpha / 2 * pretrained_sum + self.beta / 2 * new_sum)


def l2sp(stages: Stages, config: Any) -> Method:
    """Penalise the distance of pretrained parameters to their initial values, and of new parameters to 0 (Li et al. 2018, equation 4).

    The loss is mean loss + alpha / 2 * ||w - w0||^2 + beta / 2 * ||w_new||^2. The paper fixes beta at 0.01 and chooses alpha for each task
    on held-out data; here alpha is 0.1. `weight_decay` still pulls all parameters to 0: set it to 0 for the paper's method. Costs a copy
    of the trainable parameters.
    """
    o = config.l2sp
    check("l2sp.alpha", o.alpha, o.alpha >= 0, "at least 0")
    check("l2sp.beta", o.beta, o.beta >= 0, "at least 0")
    return Method(hooks=(L2SP(o.alpha, o.beta),))


@dataclasses.dataclass(frozen=True)
class Mixout(TrainingHook):
    """Computes the loss with w0 + dropout(w - w0) in the encoder's kernels: each weight is w0 with probability p."""

    p: float
    name = "mixout"
    anchored = True
    needs = "encoder/.*/kernel"

    def effective_params(self, trainable, frozen, key):
        initial, leaves = flatten(frozen["anchor"]), flatten(trainable)
        kernels = [name for name, w in leaves.items() if name.startswith("encoder/") and name.endswith("/kernel") and w.ndim == 2]
        for name, kernel_key in keys_of(key, [f"mixout/{name}" for name in kernels]).items():
            name = name.removeprefix("mixout/")
            leaves[name] = initial[name] + dropped(leaves[name] - initial[name], self.p, kernel_key)
        return unflatten(leaves)


def mixout(stages: Stages, config: Any) -> Method:
    """Replace each weight of a kernel by its pretrained value with probability `mixout_p` in each step (Lee et al. 2020).

    The loss uses (M * w + (1 - M) * w0 - p * w0) / (1 - p) with M ~ Bernoulli(1 - p) for each element, as in the authors' code; the
    expectation is w. The paper tries p of 0.7, 0.8 and 0.9; here p is 0.9. The head is left out. Costs a copy of the trainable parameters
    and a pass over the kernels.
    """
    check("mixout_p", config.mixout_p, 0 <= config.mixout_p < 1, "at least 0 and less than 1")
    return Method(hooks=(Mixout(config.mixout_p),))


KINDS = ("F", "D")


@dataclasses.dataclass(frozen=True)
class ChildTuning(TrainingHook):
    """Masks the gradient of all but a fraction p of the encoder's elements. Kind "F": a random mask in each step; kind "D": a fixed mask
    of the elements with the largest Fisher information."""

    kind: str
    p: float
    batches: int
    name = "child_tuning"
    needs = "encoder"

    def calibrate(self, gradients: Callable[[], Iterator[Tree]]) -> Tree:
        """Return the mask of kind D: a tree of bool arrays in the shapes of the encoder's trainable parameters. Kind F: an empty tree."""
        if self.kind == "F":
            return {}
        add = jax.jit(lambda total, grads: jax.tree.map(lambda t, g: t + jnp.square(g), total, grads), donate_argnums=0)
        total = None
        for grads in itertools.islice(gradients(), self.batches):
            grads = {"encoder": grads["encoder"]}
            total = add(jax.tree.map(jnp.zeros_like, grads) if total is None else total, grads)
        information = {name: np.asarray(x) for name, x in flatten(total).items()}
        values = np.concatenate([x.ravel() for x in information.values()])
        count = max(round(self.p * values.size), 1)
        threshold = np.partition(values, -count)[-count]
        return unflatten({name: x >= threshold for name, x in information.items()})

    def wrap_grad(self, gradient: Gradient) -> Gradient:
        def masked(trainable: Tree, frozen: Tree, batch: Any, key: jax.Array):
            grads, stats = gradient(trainable, frozen, batch, key)
            masks = flatten(frozen[self.name]) if self.kind == "D" else {}

            def mask(name: str, g: jax.Array) -> jax.Array:
                if not name.startswith("encoder/"):
                    return g
                key_name = f"{self.name}/{name}"
                return jnp.where(masks[name], g, 0.0) if masks else dropped(g, 1.0 - self.p, keys_of(key, [key_name])[key_name])

            return map_named(mask, grads), stats

        return masked


def child_tuning(stages: Stages, config: Any) -> Method:
    """Train only a child network of the encoder in each step: mask the gradient of all other elements (Xu et al. 2021).

    Kind F: g * M / p with a random M ~ Bernoulli(p) for each element and step (section 2.2). Kind D: g * M, where M is fixed before
    training: the fraction p of all the encoder's elements with the largest Fisher information (section 2.3). As in the authors' code this
    is the mean of squared gradients of batches; here at the initial parameters, without dropout, over the first `child_tuning.batches`
    batches (100; the paper takes an epoch). p is 0.3, in the paper's range for both kinds (0.2 to 0.4, 0.1 to 0.3). The head always
    trains. Weight decay applies to all elements. The mask is applied before clipping. Kind F costs a pass over the gradient, kind D the
    gradients of these batches and a byte for each element.
    """
    o = config.child_tuning
    if o.kind not in KINDS:
        raise InputError(f"child_tuning.kind {o.kind!r}: {nearest(o.kind, KINDS)}")
    check("child_tuning.p", o.p, 0 < o.p <= 1, "over 0 and at most 1")
    check("child_tuning.batches", o.batches, o.batches >= 1, "at least 1")
    return Method(hooks=(ChildTuning(o.kind, o.p, o.batches),))


@dataclasses.dataclass(frozen=True)
class NoisyTune(TrainingHook):
    """Replaces each matrix w of the encoder by w + U(-scale / 2, scale / 2) * std(w), once, before training."""

    scale: float
    name = "noisytune"

    def init_params(self, params, fresh, key):
        def add_noise(name: str, w: jax.Array) -> jax.Array:
            if not name.startswith("encoder/") or w.ndim < 2:
                return w
            key_name = f"{self.name}/{name}"
            noise = jax.random.uniform(keys_of(key, [key_name])[key_name], w.shape, w.dtype, -self.scale / 2, self.scale / 2)
            return w + noise * jnp.std(w)

        return map_named(add_noise, params)


def noisytune(stages: Stages, config: Any) -> Method:
    """Add noise to each pretrained matrix, in proportion to its standard deviation, once before training (Wu et al. 2022, equation 1).

    w becomes w + U(-lambda / 2, lambda / 2) * std(w) with lambda = `noisytune_lambda`, 0.15 as in the paper. Frozen matrices get noise too.
    Costs nothing.
    """
    check("noisytune_lambda", config.noisytune_lambda, config.noisytune_lambda >= 0, "at least 0")
    return Method(hooks=(NoisyTune(config.noisytune_lambda),))


@dataclasses.dataclass(frozen=True)
class ReinitTop(TrainingHook):
    """Replaces the pretrained parameters of the stages `top` and of the pooler by random values, before training."""

    top: Stages
    name = "reinit_top"
    needs_all = True

    @property
    def needs(self) -> str:
        """Return a pattern of the kernels of these stages: random kernels that stay frozen would be of no use."""
        return f"encoder/({'|'.join(self.top)})/.*kernel"

    @property
    def reinit(self) -> str:
        """Return a pattern of all parameters of these stages and of the pooler."""
        return f"encoder/({'|'.join(self.top)}|pooler)/.*"

    def init_params(self, params, fresh, key):
        reinit = {name: fresh["encoder"][name] for name in (*self.top, "pooler") if name in params["encoder"]}
        return {**params, "encoder": {**params["encoder"], **reinit}}


def reinit_top(stages: Stages, config: Any) -> Method:
    """Initialise the top `reinit_layers` layers and the pooler with random values, as before pretraining (Zhang et al. 2021, section 5).

    The paper chooses 1 to 6 of BERT-large's 24 layers on held-out data; here the default is 1. Costs nothing. Raises InputError if the
    encoder has fewer layers.
    """
    return Method(hooks=(ReinitTop(top_layers(stages, "reinit_layers", config.reinit_layers)),))
