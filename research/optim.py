"""From a plan to an optax transformation: schedules, groups, one clip over what trains."""

import optax

from research.errors import InputError, nearest
from research.params.plan import Entry, Plan
from research.params.tree import Tree, map_named

SCHEDULES = ("linear", "cosine", "constant")
OPTIMIZERS = {
    "adamw": lambda c: optax.scale_by_adam(c.beta1, c.beta2, c.epsilon),
    "adam": lambda c: optax.scale_by_adam(c.beta1, c.beta2, c.epsilon),
    "sgd": lambda c: optax.trace(c.momentum),
    # Adafactor's own step sizes are left out: the schedule below decides, as for the others.
    "adafactor": lambda c: optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0)),
}


def schedule(name: str, peak: float, warmup: int, total: int) -> optax.Schedule:
    """Step -> learning rate: linear warm-up from 0 to `peak` over `warmup` steps, then `name` down to 0 at `total`.

    Raises InputError for an unknown name, and unless 0 <= warmup < total (a single step has no room for a warm-up).
    """
    if name not in SCHEDULES:
        raise InputError(f"schedule {name!r}: {nearest(name, SCHEDULES)}")
    if not 0 <= warmup < max(total, 1):
        raise InputError(f"warmup is {warmup} steps of {total}: it must end before the training does; lower --config.warmup_percent")
    after = {
        "linear": lambda: optax.linear_schedule(peak, 0.0, total - warmup),
        "cosine": lambda: optax.cosine_decay_schedule(peak, max(total - warmup, 1)),
        "constant": lambda: optax.constant_schedule(peak),
    }[name]()
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup]) if warmup else after


def _group(entry: Entry, config, rate: optax.Schedule) -> optax.GradientTransformation:
    """One group's own chain. Decay is decoupled (Loshchilov & Hutter 2019), except for plain Adam and SGD, whose decay is
    the classic L2 term that goes through the optimizer."""
    scale = OPTIMIZERS[config.optimizer](config)
    decay = optax.add_decayed_weights(config.weight_decay) if entry.decay and config.weight_decay else optax.identity()
    first, second = (scale, decay) if config.optimizer in ("adamw", "adafactor") else (decay, scale)
    return optax.chain(first, second, optax.scale_by_learning_rate(lambda step: entry.fate.multiplier * rate(step)))


def make(plan: Plan, config, rate: optax.Schedule) -> optax.GradientTransformation:
    """The transformation of the trainable half: clip its global norm once, then each group's own chain.

    Raises InputError for an unknown optimizer, and for a multiplier that is not positive (freeze the parameter instead).
    """
    if config.optimizer not in OPTIMIZERS:
        raise InputError(f"optimizer {config.optimizer!r}: {nearest(config.optimizer, OPTIMIZERS)}")
    for name, entry in plan.entries.items():
        if entry.fate.trained and not entry.fate.multiplier > 0:
            raise InputError(f"rule {entry.rule!r}: learning-rate multiplier {entry.fate.multiplier:g} on {name}; freeze it instead")

    def labels(trainable: Tree) -> Tree:
        return map_named(lambda name, _: plan.entries[name].group, trainable)

    groups = {group: _group(entry, config, rate) for group, entry in plan.groups.items()}
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, optax.partition(groups, labels))
