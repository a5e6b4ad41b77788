"""From a plan to an optax transformation: schedules, groups, one clip over what trains."""

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
    # Adafactor's own step sizes are left out: the schedule below decides, as for the others.
    "adafactor": lambda c: optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)),
}


def schedule(name: str, peak: float, warmup: int, total: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up from 0 to `peak` over `warmup` steps, then `name` down to 0 at `total`.

    `slanted_triangular` goes from `peak` / 32 up and back down to it (Howard & Ruder 2018, equation 3, ratio 32; a tenth of the steps
    is its usual warm-up). Raises InputError for an unknown name, and unless 0 <= warmup < total (a single step has no room for a warm-up).
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
    """One group's own chain. Decay is decoupled (Loshchilov & Hutter 2019), except for plain Adam and SGD, whose decay is
    the classic L2 term that goes through the optimizer."""
    scale = OPTIMIZERS[config.optimizer](config)
    decay = optax.add_decayed_weights(weight_decay) if entry.decay else optax.identity()
    first, second = (scale, decay) if config.optimizer in ("adamw", "adafactor") else (decay, scale)
    return optax.chain(first, second, optax.scale(entry.treatment.multiplier) if entry.treatment.multiplier != 1.0 else optax.identity())


def _uncorrected(beta1: float, beta2: float, epsilon: float) -> optax.GradientTransformation:
    """Adam with its moments as they are, as BERT was fine-tuned (Devlin et al. 2019; Mosbach et al. 2021; Zhang et al. 2021). Both begin
    at 0, the second grows the slower: with the usual betas the first step is 3.2 times what it would be, the thousandth still 1.3."""

    def update(gradients, state, _=None):
        mu = optax.tree.update_moment(gradients, state.mu, beta1, 1)
        nu = optax.tree.update_moment_per_elem_norm(gradients, state.nu, beta2, 2)
        steps = jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + epsilon), mu, nu)
        return steps, optax.ScaleByAdamState(optax.safe_increment(state.count), mu, nu)

    return optax.GradientTransformation(optax.scale_by_adam().init, update)


def _clip(limit: float) -> optax.GradientTransformation:
    """As `optax.clip_by_global_norm`, by a product: a program does that again wherever the gradient is read, whereas the quotient of
    every gradient is computed once and kept beside it, which costs as much memory as the parameters."""

    def update(gradients, _):
        scale = jnp.minimum(1.0, limit / optax.tree.norm(gradients))
        return jax.tree.map(lambda g: g * scale, gradients)

    return optax.stateless(update)


def check(plan: Plan, config) -> None:
    """Raise InputError for an unknown optimizer, for one without moments whose bias could stay uncorrected, and for a multiplier that is
    not positive (freeze the parameter instead)."""
    if config.optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer {config.optimizer!r}: {nearest(config.optimizer, OPTIMIZERS)}")
    if not config.bias_correction and config.optimizer not in ADAMS:
        raise InputError(f"bias_correction=False is of {' and '.join(ADAMS)}; optimizer={config.optimizer} corrects nothing")
    for name, entry in plan.entries.items():
        if entry.treatment.trained and not entry.treatment.multiplier > 0:
            raise InputError(f"rule {entry.rule!r}: learning-rate multiplier {entry.treatment.multiplier:g} on {name}; freeze it instead")


def make(plan: Plan, config, scalars: Mapping[str, Any]) -> optax.GradientTransformation:
    """Return the optimizer of the trainable parameters: clip their global norm once, then each group's chain, then the learning rate.

    `scalars` has `learning_rate` and `weight_decay`; they may be arguments of a compiled program. The state does not depend on them.
    Raises InputError as `check` does.
    """
    check(plan, config)

    def labels(trainable: Tree) -> Tree:
        return map_named(lambda name, _: plan.entries[name].group, trainable)

    groups = {group: _group(entry, config, scalars["weight_decay"]) for group, entry in plan.groups.items()}
    clip = _clip(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optax.partition(groups, labels), optax.scale(-scalars["learning_rate"]))


def carried(fresh: optax.OptState, before: optax.OptState) -> optax.OptState:
    """`fresh` with what `before` has for the same parameters of the same groups: their moments, and the run's step."""
    known = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(before)}

    def choose(path, leaf):
        old = known.get(jax.tree_util.keystr(path))
        return leaf if old is None or old.shape != leaf.shape else old

    return jax.tree_util.tree_map_with_path(choose, fresh)
