"""Methods that say which parameters of the encoder train, from when on, and at what rate.

A method speaks only of what it means: what it leaves out is frozen, unless another method that it is joined with trains it. Layers that
share their parameters are one here: they open together.
"""

from typing import Any

from research.adapt.base import Method
from research.errors import InputError
from research.params.plan import FROZEN, Rules, Treatment

Stages = tuple[str, ...]
EVERYTHING = {"encoder": ("encoder", Treatment())}
NOTHING = {"encoder": ("encoder", FROZEN)}


def full(stages: Stages, config: Any) -> Method:
    """Everything trains (Devlin et al. 2019, section 3.2). The dearest: 3 passes' work, moments for every parameter."""
    return Method(phases=(EVERYTHING,))


def linear_probe(stages: Stages, config: Any) -> Method:
    """Only the head trains, on frozen features. Costs one forward pass of the encoder over the data, ever."""
    return Method(phases=(NOTHING,))


def top_k(stages: Stages, config: Any) -> Method:
    """The head and the last `config.top_layers` layers train; embeddings and lower layers are frozen (Lee et al. 2019).

    What stands above the last layer (a pooler) trains with it. Costs one forward pass of what is frozen over the data, ever, and
    3 passes' work of the rest. Raises InputError when there are fewer layers than asked for.
    """
    layers = top_layers(stages, "top_layers", config.top_layers, ", or method=linear_probe for none")
    return Method(phases=(_top(stages, len(layers)),))


def once(stages: Stages) -> Stages:
    """Each stage that has parameters of its own, in order."""
    return tuple(dict.fromkeys(stages))


def top_layers(stages: Stages, option: str, k: int, otherwise: str = "") -> Stages:
    """The last `k` layers. Raises InputError where there are not so many with parameters of their own."""
    layers, count = once(stages)[1:], len(stages) - 1
    if not 1 <= k <= len(layers):
        shared = f" that share the parameters of {len(layers)}" if len(layers) < count else ""
        raise InputError(f"{option}={k}: the encoder has {count} layers{shared}; use 1 to {len(layers)}{otherwise}")
    return layers[-k:]


def _top(stages: Stages, k: int) -> Rules:
    """A rule by which the last `k` stages train, and what stands above them."""
    stages = once(stages)
    below = stages[: max(len(stages) - k, 0)]
    return {"top": (f"encoder/(?!({'|'.join(below)})/).*", Treatment())} if below else EVERYTHING


def embeddings_frozen(stages: Stages, config: Any) -> Method:
    """All but the embeddings train. The usual saving where the table is half of the model: no moments, no gradient for it."""
    return Method(phases=({stages[0]: (f"encoder/{stages[0]}", FROZEN), **EVERYTHING},))


def bitfit(stages: Stages, config: Any) -> Method:
    """The biases train (Ben Zaken et al. 2022): under 0.1% of a BERT. Costs what no weight's gradient costs: 2 passes' work of 3."""
    return Method(phases=({"biases": ("encoder/.*/bias", Treatment())},))


def layernorm(stages: Stages, config: Any) -> Method:
    """The layer norms train, scale and bias (Qi et al. 2022, "Parameter-efficient tuning on layer normalization"). Costs as `bitfit`."""
    return Method(phases=({"norms": (r"encoder/.*/(norm|\w+_norm)/(scale|bias)", Treatment())},))


def gradual_unfreezing(stages: Stages, config: Any) -> Method:
    """The head trains first; then the stages open one after the other, the last first (Howard & Ruder 2018, section 3.3).

    `config.unfreeze_layers` open at a time. Phases begin every `config.phase_percent` of the training (or `phase_epochs`, ...); 0
    spreads them evenly over its first half. The paper opens one layer of four an epoch. A phase costs what `top_k`
    costs with the layers that are open.
    """
    step = config.unfreeze_layers
    if step < 1:
        raise InputError(f"unfreeze_layers={step}: at least one stage must open at a time")
    return Method(phases=({}, *(_top(stages, k) for k in range(step, len(once(stages)) + step, step))))


def chain_thaw(stages: Stages, config: Any) -> Method:
    """First the head alone, then each stage alone from the first to the last, then everything (Felbo et al. 2017, section 3.3).

    The head trains in all phases here; the paper closes it while a stage trains. Phases begin as for `gradual_unfreezing`.
    """
    alone = ({stage: (f"encoder/{stage}", Treatment())} for stage in once(stages))
    return Method(phases=({}, *alone, EVERYTHING))


def llrd(stages: Stages, config: Any) -> Method:
    """Layer-wise decay of the learning rate: each stage has `config.llrd_decay` (0.95) times the rate of the one above.

    Sun et al. 2019, section 5.3.3 (0.95 was best on IMDb); the last layer and what stands above it have the full rate. Costs nothing.
    """
    return Method(rates=_rates(stages, config.llrd_decay))


def discriminative(stages: Stages, config: Any) -> Method:
    """Each stage has the rate of the one above divided by `config.discriminative_factor` (2.6; Howard & Ruder 2018, section 3.2)."""
    if not config.discriminative_factor > 0:
        raise InputError(f"discriminative_factor={config.discriminative_factor:g} must be over 0")
    return Method(rates=_rates(stages, 1.0 / config.discriminative_factor))


def _rates(stages: Stages, decay: float) -> dict[str, tuple[str, float]]:
    return {stage: (stage, decay**depth) for depth, stage in enumerate(reversed(once(stages))) if depth}
