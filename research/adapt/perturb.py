"""Methods that train with perturbations: a second dropout mask, noise on the embeddings, or shifted parameters.

Letters: B rows of a batch, L tokens of a row, E examples of a row, D hidden size. Noise is a function of (key, example, position,
feature), and norms are over an example, not over a row: neither depends on packing or on the number of devices.
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
    """Return noise [B, L, features], uniform in the open interval (-1, 1), 0 in padding. Each `name` has different noise."""
    salt = jax.random.bits(keys_of(key, [name])[name], (), jnp.uint32)
    columns = jnp.arange(features, dtype=jnp.uint32)[None, None]
    bits = mix(mix(token_salt(batch) + salt)[:, :, None] ^ (columns * jnp.uint32(GOLDEN)))
    noise = ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-22 - 1.0  # 23 bits: float32 represents every value exactly
    return jnp.where(batch["segments"][:, :, None] > 0, noise, 0.0)


def normal(key: jax.Array, name: str, batch: Batch, features: int) -> jax.Array:
    """Return noise as `uniform` does, but normally distributed with mean 0 and variance 1."""
    return 2.0**0.5 * jax.lax.erf_inv(uniform(key, name, batch, features))


def reduce_examples(values: jax.Array, batch: Batch, reduce: Callable[..., jax.Array]) -> jax.Array:
    """Reduce non-negative `values` [B, L] over the tokens of each example. Return the result at each token: [B, L, 1]."""
    numbers = jnp.arange(1, batch["example_starts"].shape[1] + 1)
    members = batch["segments"][:, None, :] == numbers[None, :, None]
    reduced = reduce(jnp.where(members, values[:, None], 0.0), axis=-1)
    return jnp.take_along_axis(reduced, jnp.maximum(batch["segments"] - 1, 0), axis=1)[:, :, None]


def norm(x: jax.Array, batch: Batch) -> jax.Array:
    """Return the Euclidean norm of x [B, L, D] over the tokens of each example, at each token: [B, L, 1]."""
    return jnp.sqrt(reduce_examples(jnp.square(x).sum(-1), batch, jnp.sum))


def divide(x: jax.Array, size: jax.Array) -> jax.Array:
    """Return x / size, or x where `size` is 0."""
    return x / jnp.where(size > 0, size, 1.0)


@dataclasses.dataclass(frozen=True)
class RDrop(TrainingHook):
    """Adds the loss of a second pass with a different dropout mask, and alpha times the mean of both KL divergences between the passes."""

    alpha: float
    name = "rdrop"
    passes = 2.0

    def extra_loss(self, model, trainable, frozen, batch, key, logits):
        second = model.logits(trainable, frozen, batch, keys_of(key, [self.name])[self.name])
        loss, _ = model.task.loss(second, batch, model.label_smoothing)
        return loss + self.alpha / 2 * model.task.divergence(logits, second, batch)


def rdrop(stages: Stages, config: Any) -> Method:
    """Penalise different predictions of two passes with different dropout masks (Liang et al. 2021, equations 1 to 3).

    The loss is -log P1(y) - log P2(y) + alpha / 2 * (KL(P1 || P2) + KL(P2 || P1)). The losses of the passes are added, as in the paper, so
    the gradient is about twice as large as with other methods. `rdrop_alpha` is 1, in the paper's range for GLUE (0.1 to 1). Costs 2
    passes.
    """
    check("rdrop_alpha", config.rdrop_alpha, config.rdrop_alpha >= 0, "at least 0")
    if not config.dropout:
        raise InputError(f"dropout={config.dropout:g}: rdrop compares passes with different dropout masks; use --config.dropout=0.1")
    return Method(hooks=(RDrop(config.rdrop_alpha),))


@dataclasses.dataclass(frozen=True)
class Smart(TrainingHook):
    """Adds weight * max over |delta| <= epsilon of the symmetric divergence between the predictions for x and for x + delta."""

    weight: float
    epsilon: float
    sigma: float
    step_size: float
    steps: int
    name = "smart"

    @property
    def passes(self) -> float:
        """Return 1 for the step, 1 for the penalty and 2/3 for each ascent step, which has no gradient of the parameters."""
        return 2.0 + self.steps * 2 / 3

    def extra_loss(self, model, trainable, frozen, batch, key, logits):
        # All passes use the same key, so that their predictions differ by the noise alone and not by the dropout mask.
        fixed_logits, fixed_params = jax.lax.stop_gradient((logits, trainable))

        def divergence(delta: jax.Array) -> jax.Array:
            return model.task.divergence(fixed_logits, model.logits(fixed_params, frozen, batch, key, delta), batch)

        delta = self.sigma * normal(key, self.name, batch, model.embedding_noise_width)
        for _ in range(self.steps):
            ascent = jax.grad(divergence)(delta)
            ascent = divide(ascent, reduce_examples(jnp.abs(ascent).max(-1), batch, jnp.max))
            delta = jnp.clip(delta + self.step_size * ascent, -self.epsilon, self.epsilon)
        perturbed = model.logits(trainable, frozen, batch, key, jax.lax.stop_gradient(delta))
        return self.weight * model.task.divergence(logits, perturbed, batch)


def smart(stages: Stages, config: Any) -> Method:
    """Penalise predictions that change with small changes of the embeddings (Jiang et al. 2020, equation 1 and algorithm 1).

    The penalty is lambda * max over ||d||_inf <= epsilon of KL(P(x) || P(x + d)) + KL(P(x + d) || P(x)). d begins as normal noise of
    deviation sigma and takes `steps` ascent steps of step_size * g / ||g||_inf, with the norm over an example. d is added to the
    normalised embeddings, of size about 1, or to the input of the first layer that is not frozen. lambda 1 and 1 step are the paper's.
    The defaults (epsilon and step size 0.1, sigma 0.01) are not: with the paper's epsilon and sigma of 1e-5 on MiniLM, the measured
    gradient of the penalty is 2e-9 times that of the loss, and only rounding error in bfloat16. The paper's Bregman proximal steps are
    not implemented. Costs 2.7 passes.
    """
    o = config.smart
    check("smart.weight", o.weight, o.weight >= 0, "at least 0")
    for name in ("epsilon", "sigma", "step_size"):
        check(f"smart.{name}", o[name], o[name] > 0, "over 0")
    check("smart.steps", o.steps, o.steps >= 1, "at least 1")
    return Method(hooks=(Smart(**o),))


@dataclasses.dataclass(frozen=True)
class FreeLB(TrainingHook):
    """Averages the gradients at `steps` perturbations of the embeddings, each an ascent step from the one before."""

    steps: int
    step_size: float
    init: float
    norm: float
    name = "freelb"

    @property
    def passes(self) -> float:
        """Return the number of perturbations: each costs one pass."""
        return float(self.steps)

    def initial_noise(self, batch: Batch, key: jax.Array, features: int) -> jax.Array:
        """Return init * U(-1, 1) / sqrt(N), where N is the number of elements of an example: [B, L, D]."""
        tokens = reduce_examples(jnp.ones(batch["segments"].shape), batch, jnp.sum)
        return self.init * divide(uniform(key, self.name, batch, features), jnp.sqrt(tokens * features))

    def ascend(self, delta: jax.Array, ascent: jax.Array, batch: Batch) -> jax.Array:
        """Return delta + step_size * g / ||g||, projected onto the ball ||delta|| <= norm. Norms are over an example."""
        delta += self.step_size * divide(ascent, norm(ascent, batch))
        return delta / jnp.maximum(norm(delta, batch) / self.norm, 1.0) if self.norm else delta

    def wrap_microbatch_grad(self, model, gradient):
        param_and_noise_grad = jax.grad(model.loss, argnums=(0, 4), has_aux=True)

        def averaged(trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array):
            delta = self.initial_noise(batch, key, model.embedding_noise_width)
            sums, first_stats = jax.tree.map(jnp.zeros_like, trainable), None
            for _ in range(self.steps):
                # All ascent steps use the same key, which fixes the dropout mask (section 3.3 of the paper).
                (grads, ascent), stats = param_and_noise_grad(trainable, frozen, batch, key, delta)
                sums, first_stats = jax.tree.map(jnp.add, sums, grads), first_stats or stats
                delta = self.ascend(delta, ascent, batch)
            return jax.tree.map(lambda g: g / self.steps, sums), first_stats

        return averaged


def freelb(stages: Stages, config: Any) -> Method:
    """Train on adversarially perturbed embeddings, with the mean gradient of all ascent steps (Zhu et al. 2020, algorithm 1).

    g = 1/K * sum over t < K of dL(x + d_t)/dw; d_0 = init * U(-1, 1) / sqrt(N); d_(t+1) = d_t + step_size * g_d / ||g_d||, projected onto
    ||d|| <= norm (0: no bound), with norms over an example. The defaults are the authors' for SST-2: K 3, step size 0.1, init 1, norm
    0.6. The authors perturb word embeddings; here d is added to the normalised sum of embeddings, which has a larger norm, or to the
    input of the first layer that is not frozen. The reported training loss is that of d_0. Costs K passes.
    """
    o = config.freelb
    check("freelb.steps", o.steps, o.steps >= 1, "at least 1")
    check("freelb.step_size", o.step_size, o.step_size > 0, "over 0")
    for name in ("init", "norm"):
        check(f"freelb.{name}", o[name], o[name] >= 0, "at least 0")
    return Method(hooks=(FreeLB(**o),))


@dataclasses.dataclass(frozen=True)
class Sam(TrainingHook):
    """Takes the gradient at w + rho * g / ||g||, where g is the gradient at w."""

    rho: float
    name = "sam"
    passes = 2.0

    def wrap_grad(self, gradient: Gradient) -> Gradient:
        def sharpness_aware(trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array):
            grads, stats = gradient(trainable, frozen, batch, key)
            scale = divide(self.rho, optax.tree.norm(grads))
            ascended = jax.tree.map(lambda w, g: w + scale * g, trainable, grads)
            return gradient(ascended, frozen, batch, key)[0], stats

        return sharpness_aware


def sam(stages: Stages, config: Any) -> Method:
    """Minimise the loss at the worst point nearby, to find flat minima (Foret et al. 2021, equation 3 and algorithm 1).

    The gradient is dL/dw at w + rho * g / ||g||, where g is the mean gradient of the whole batch at w, over all devices and microbatches
    (the paper's runs take that of each device). Both passes have the same dropout mask. `sam_rho` is 0.05 as in the paper. Costs 2 passes.
    """
    check("sam_rho", config.sam_rho, config.sam_rho > 0, "over 0")
    return Method(hooks=(Sam(config.sam_rho),))
