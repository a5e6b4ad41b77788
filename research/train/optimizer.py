"""The optax optimizer of a plan: learning-rate schedules, parameter groups and global-norm clipping."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from research.errors import InputError, nearest
from research.params.plan import Entry, Plan
from research.params.tree import Tree, map_named

SCHEDULES = ("linear", "cosine", "constant", "slanted_triangular")
ADAMS = ("adam", "adamw")
OPTIMIZERS = {
    **{name: lambda c: (optax.scale_by_adam if c.bias_correction else _uncorrected)(c.beta1, c.beta2, c.epsilon) for name in ADAMS},
    "sgd": lambda c: optax.trace(c.momentum),
    # The relative step sizes of Adafactor are left out: the learning-rate schedule applies to all optimizers.
    "adafactor": lambda c: optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)),
}


def schedule(name: str, peak: float, warmup: int, total: int) -> optax.Schedule:
    """Return the learning rate as a function of the step: linear warm-up from 0 to `peak` over `warmup` steps, then the decay `name`.

    `linear` and `cosine` reach 0 at step `total`. `slanted_triangular` rises from `peak` / 32 and falls back to it (Howard & Ruder 2018,
    equation 3, ratio 32; the usual warm-up is a tenth of the steps). Raises InputError for an unknown name, and unless
    0 <= warmup < total.
    """
    if name not in SCHEDULES:
        raise InputError(f"schedule {name!r}: {nearest(name, SCHEDULES)}")
    if not 0 <= warmup < max(total, 1):
        raise InputError(f"warmup is {warmup} steps of {total}: it must end before the training does; lower --config.warmup_percent")
    lowest = peak / 32 if name == "slanted_triangular" else 0.0
    after = {
        "linear": lambda: optax.linear_schedule(peak, 0.0, total - warmup),
        "cosine": lambda: optax.cosine_decay_schedule(peak, max(total - warmup, 1)),
        "constant": lambda: optax.constant_schedule(peak),
        "slanted_triangular": lambda: optax.linear_schedule(peak, lowest, total - warmup),
    }[name]()
    return optax.join_schedules([optax.linear_schedule(lowest, peak, warmup), after], [warmup]) if warmup else after


def _group(entry: Entry, config, weight_decay: Any) -> optax.GradientTransformation:
    """Return the transformation of one group. Weight decay is decoupled (Loshchilov & Hutter 2019), except for Adam and SGD, where
    the decay is an L2 term of the gradient."""
    scale = OPTIMIZERS[config.optimizer](config)
    decay = optax.add_decayed_weights(weight_decay) if entry.decay else optax.identity()
    first, second = (scale, decay) if config.optimizer in ("adamw", "adafactor") else (decay, scale)
    return optax.chain(first, second, optax.scale(entry.treatment.multiplier) if entry.treatment.multiplier != 1.0 else optax.identity())


def _uncorrected(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Return Adam without bias correction, as used to fine-tune BERT (Devlin et al. 2019; Mosbach et al. 2021; Zhang et al. 2021).

    With the usual betas the first step is 3.2 times the corrected one, and the thousandth still 1.3 times."""

    def update(gradients, state, _=None):
        mu = optax.tree.update_moment(gradients, state.mu, beta1, 1)
        nu = optax.tree.update_moment_per_elem_norm(gradients, state.nu, beta2, 2)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
        return steps, optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _clip(limit: float) -> optax.GradientTransformation:
    """Return a transformation like `optax.clip_by_global_norm`, but with a product instead of a division. XLA recomputes a product
    wherever it is read, but stores a quotient, which takes as much memory as the parameters."""

    def update(gradients, _):
        scale = jnp.minimum(1.0, limit / optax.tree.norm(gradients))
        return jax.tree.map(lambda g: g * scale, gradients)

    return optax.stateless(update)


def check(plan: Plan, config) -> None:
    """Raise InputError for an unknown optimizer, for bias_correction=False with an optimizer other than Adam and AdamW, and for a
    learning-rate multiplier that is not positive."""
    if config.optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer {config.optimizer!r}: {nearest(config.optimizer, OPTIMIZERS)}")
    if not config.bias_correction and config.optimizer not in ADAMS:
        raise InputError(f"bias_correction=False is of {' and '.join(ADAMS)}; optimizer={config.optimizer} corrects nothing")
    for name, entry in plan.entries.items():
        if entry.treatment.trained and not entry.treatment.multiplier > 0:
            raise InputError(f"rule {entry.rule!r}: learning-rate multiplier {entry.treatment.multiplier:g} on {name}; freeze it instead")


def make(plan: Plan, config, scalars: Mapping[str, Any]) -> optax.GradientTransformation:
    """Return the optimizer of the trainable parameters: global-norm clipping, the transformation of each group, the learning rate.

    `scalars` has `learning_rate` and `weight_decay`, which may be arguments of a compiled program. The optimizer state does not depend
    on them.
    Raises InputError as `check` does.
    """
    check(plan, config)

    def labels(trainable: Tree) -> Tree:
        return map_named(lambda name, _: plan.entries[name].group, trainable)

    groups = {group: _group(entry, config, scalars["weight_decay"]) for group, entry in plan.groups.items()}
    clip = _clip(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optax.partition(groups, labels), optax.scale(-scalars["learning_rate"]))


def carried(fresh: optax.OptState, before: optax.OptState) -> optax.OptState:
    """Return `fresh` with the values of `before` (moments, step counts) for the same parameters of the same groups."""
    known = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(before)}

    def choose(path, leaf):
        old = known.get(jax.tree_util.keystr(path))
        return leaf if old is None or old.shape != leaf.shape else old

    return jax.tree_util.tree_map_with_path(choose, fresh)
