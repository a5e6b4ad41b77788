"""Methods that compare a step with what a perturbation makes of it: other dropout, noise in the embeddings, other parameters.

Letters: B rows of a batch, L tokens of a row, E examples of a row, D hidden size. Noise is a function of (key, example, position,
feature), and sizes are those of an example, not of a row: neither depends on packing or on the number of devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.adapt.base import Gradient, Method, TrainingHook
from research.adapt.regularize import check
from research.adapt.targets import keys_of
from research.errors import InputError
from research.layers.dropout import GOLDEN, mix, token_salt
from research.params.tree import Tree

Stages = tuple[str, ...]
Batch = dict[str, jax.Array]


def uniform(key: jax.Array, name: str, batch: Batch, features: int) -> jax.Array:
    """Noise [B, L, features], uniform between -1 and 1 and never either, 0 in padding; other names give other noise."""
    interceptor = jax.random.bits(keys_of(key, [name])[name], (), jnp.uint32)
    columns = jnp.arange(features, dtype=jnp.uint32)[None, None]
    bits = mix(mix(token_salt(batch) + interceptor)[:, :, None] ^ (columns * jnp.uint32(GOLDEN)))
    noise = ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-22 - 1.0  # 23 bits: every value is exact
    return jnp.where(batch["segments"][:, :, None] > 0, noise, 0.0)


def normal(key: jax.Array, name: str, batch: Batch, features: int) -> jax.Array:
    """The same, distributed normally with mean 0 and variance 1."""
    return 2.0**0.5 * jax.lax.erf_inv(uniform(key, name, batch, features))


def of_example(values: jax.Array, batch: Batch, reduce: Callable[..., jax.Array]) -> jax.Array:
    """`values` [B, L], none negative, reduced over each example: [B, L, 1], at each token what its example gives."""
    numbers = jnp.arange(1, batch["example_starts"].shape[1] + 1)
    members = batch["segments"][:, None, :] == numbers[None, :, None]
    found = reduce(jnp.where(members, values[:, None], 0.0), axis=-1)
    return jnp.take_along_axis(found, jnp.maximum(batch["segments"] - 1, 0), axis=1)[:, :, None]


def norm(x: jax.Array, batch: Batch) -> jax.Array:
    """The Euclidean norm of each example's part of x [B, L, D], at each token: [B, L, 1]."""
    return jnp.sqrt(of_example(jnp.square(x).sum(-1), batch, jnp.sum))


def over(x: jax.Array, size: jax.Array) -> jax.Array:
    """x / size; x where the size is 0."""
    return x / jnp.where(size > 0, size, 1.0)


@dataclasses.dataclass(frozen=True)
class RDrop(TrainingHook):
    """A second pass with other dropout: its loss, and alpha times the mean of the two divergences between the passes."""

    alpha: float
    name = "rdrop"
    passes = 2.0

    def extra_loss(self, model, trainable, frozen, batch, key, logits):
        again = model.logits(trainable, frozen, batch, keys_of(key, [self.name])[self.name])
        loss = model.kind.loss_sum(again, batch, model.config.label_smoothing)
        return loss + self.alpha / 2 * model.kind.divergence(logits, again, batch)


def rdrop(stages: Stages, config: Any) -> Method:
    """Two passes that drop differently must agree (Liang et al. 2021, equations 1 to 3).

    -log P1(y) - log P2(y) + alpha / 2 * (KL(P1 || P2) + KL(P2 || P1)): the losses are added, as in the paper, so the gradient is about
    twice as long as elsewhere. `rdrop_alpha` is 1, in the paper's range for GLUE (0.1 to 1). Costs 2 passes.
    """
    check("rdrop_alpha", config.rdrop_alpha, config.rdrop_alpha >= 0, "at least 0")
    if not config.dropout:
        raise InputError(f"dropout={config.dropout:g}: rdrop compares two passes that drop differently; use --config.dropout=0.1")
    return Method(hooks=(RDrop(config.rdrop_alpha),))


@dataclasses.dataclass(frozen=True)
class Smart(TrainingHook):
    """weight * max over |delta| <= epsilon of the symmetric divergence between the predictions for x and for x + delta."""

    weight: float
    epsilon: float
    sigma: float
    step_size: float
    steps: int
    name = "smart"

    @property
    def passes(self) -> float:
        """The step's own, the penalty's, and for each ascent a pass forward and back to the noise: 2 of 3 parts of a pass."""
        return 2.0 + self.steps * 2 / 3

    def extra_loss(self, model, trainable, frozen, batch, key, logits):
        # The same key in all passes: what differs then is what the noise does, not what was dropped.
        fixed, still = jax.lax.stop_gradient((logits, trainable))

        def apart(delta: jax.Array) -> jax.Array:
            return model.kind.divergence(fixed, model.logits(still, frozen, batch, key, delta), batch)

        delta = self.sigma * normal(key, self.name, batch, model.embedding_noise_width)
        for _ in range(self.steps):
            ascent = jax.grad(apart)(delta)
            ascent = over(ascent, of_example(jnp.abs(ascent).max(-1), batch, jnp.max))
            delta = jnp.clip(delta + self.step_size * ascent, -self.epsilon, self.epsilon)
        nudged = model.logits(trainable, frozen, batch, key, jax.lax.stop_gradient(delta))
        return self.weight * model.kind.divergence(logits, nudged, batch)


def smart(stages: Stages, config: Any) -> Method:
    """Predictions must not change with small changes of the embeddings (Jiang et al. 2020, equation 1 and algorithm 1).

    lambda * max over ||d||_inf <= epsilon of KL(P(x) || P(x + d)) + KL(P(x + d) || P(x)). d begins as normal noise of deviation sigma and
    climbs `steps` times by step_size * g / ||g||_inf, with the norm over an example. lambda 1 and 1 step are
    the paper's. Its epsilon and sigma of 1e-5 are not: measured here on MiniLM, they give a penalty whose gradient is 2e-9 times the
    loss's, and nothing but rounding in bfloat16. The defaults (epsilon and step size 0.1, sigma 0.01) suit what d is added to: normalised
    embeddings, of size about 1, or what enters the first layer that is not frozen. The paper's other half, the Bregman proximal
    steps, is not here. Costs 2.7 passes.
    """
    o = config.smart
    check("smart.weight", o.weight, o.weight >= 0, "at least 0")
    for name in ("epsilon", "sigma", "step_size"):
        check(f"smart.{name}", o[name], o[name] > 0, "over 0")
    check("smart.steps", o.steps, o.steps >= 1, "at least 1")
    return Method(hooks=(Smart(**o),))


@dataclasses.dataclass(frozen=True)
class FreeLB(TrainingHook):
    """The mean of the gradients at `steps` perturbations of the embeddings, each one ascent on from the one before."""

    steps: int
    step_size: float
    init: float
    norm: float
    name = "freelb"

    @property
    def passes(self) -> float:
        """One for each perturbation."""
        return float(self.steps)

    def first(self, batch: Batch, key: jax.Array, features: int) -> jax.Array:
        """init * U(-1, 1) / sqrt(N), where N counts the elements of an example: [B, L, D]."""
        tokens = of_example(jnp.ones(batch["segments"].shape), batch, jnp.sum)
        return self.init * over(uniform(key, self.name, batch, features), jnp.sqrt(tokens * features))

    def onward(self, delta: jax.Array, ascent: jax.Array, batch: Batch) -> jax.Array:
        """delta + step_size * g / ||g||, brought back to the ball; norms are over an example."""
        delta += self.step_size * over(ascent, norm(ascent, batch))
        return delta / jnp.maximum(norm(delta, batch) / self.norm, 1.0) if self.norm else delta

    def wrap_microbatch_grad(self, model, gradient):
        both = jax.grad(model.loss, argnums=(0, 4), has_aux=True)

        def several(trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array):
            delta = self.first(batch, key, model.embedding_noise_width)
            total, first = jax.tree.map(jnp.zeros_like, trainable), None
            for _ in range(self.steps):
                # The same key in all steps: what is dropped is fixed while the noise climbs (section 3.3 of the paper).
                (grads, ascent), totals = both(trainable, frozen, batch, key, delta)
                total, first = jax.tree.map(jnp.add, total, grads), first or totals
                delta = self.onward(delta, ascent, batch)
            return jax.tree.map(lambda g: g / self.steps, total), first

        return several


def freelb(stages: Stages, config: Any) -> Method:
    """Training on embeddings that are perturbed against it, where no ascent's gradient is wasted (Zhu et al. 2020, algorithm 1).

    g = 1/K * sum over t < K of dL(x + d_t)/dw; d_0 = init * U(-1, 1) / sqrt(N); d_(t+1) = d_t + step_size * g_d / ||g_d||, brought back
    to ||d|| <= norm (0: no bound), with norms over an example. Defaults are the authors' for SST-2: K 3, step size 0.1, init 1, norm
    0.6. They perturb word embeddings; here d is added to the normalised sum of embeddings, which is longer, or to what enters the
    first layer that is not frozen. The training loss shown is that of d_0. Costs K passes.
    """
    o = config.freelb
    check("freelb.steps", o.steps, o.steps >= 1, "at least 1")
    check("freelb.step_size", o.step_size, o.step_size > 0, "over 0")
    for name in ("init", "norm"):
        check(f"freelb.{name}", o[name], o[name] >= 0, "at least 0")
    return Method(hooks=(FreeLB(**o),))


@dataclasses.dataclass(frozen=True)
class Sam(TrainingHook):
    """The gradient at w + rho * g / ||g||, where g is that at w."""

    rho: float
    name = "sam"
    passes = 2.0

    def wrap_grad(self, gradient: Gradient) -> Gradient:
        def sharp(trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array):
            grads, totals = gradient(trainable, frozen, batch, key)
            scale = over(self.rho, optax.tree.norm(grads))
            climbed = jax.tree.map(lambda w, g: w + scale * g, trainable, grads)
            return gradient(climbed, frozen, batch, key)[0], totals

        return sharp


def sam(stages: Stages, config: Any) -> Method:
    """The gradient is taken where the loss is highest nearby, to find flat minima (Foret et al. 2021, equation 3 and algorithm 1).

    dL/dw at w + rho * g / ||g||, g the mean gradient of the whole batch at w, over all devices and parts (the paper's own runs take each
    device's). What is dropped is the same in both. `sam_rho` is 0.05 as in the paper. Costs 2 passes.
    """
    check("sam_rho", config.sam_rho, config.sam_rho > 0, "over 0")
    return Method(hooks=(Sam(config.sam_rho),))
