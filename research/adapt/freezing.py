"""Methods that decide which parameters of the encoder train, in which phases, and at what learning rate.

Parameters that a method does not name are frozen, unless a method joined with it trains them. Layers that share parameters count as one:
they are unfrozen together.
"""

from typing import Any

from research.adapt.base import Method
from research.errors import InputError
from research.params.plan import FROZEN, Rules, Treatment

Stages = tuple[str, ...]
EVERYTHING = {"encoder": ("encoder", Treatment())}
NOTHING = {"encoder": ("encoder", FROZEN)}


def full(stages: Stages, config: Any) -> Method:
    """Train all parameters (Devlin et al. 2019, section 3.2). The most expensive method: a step costs a forward and a full backward pass,
    and the optimizer has moments for every parameter."""
    return Method(phases=(EVERYTHING,))


def linear_probe(stages: Stages, config: Any) -> Method:
    """Train only the head, on frozen features. Costs a single forward pass of the encoder over the data."""
    return Method(phases=(NOTHING,))


def top_k(stages: Stages, config: Any) -> Method:
    """Train the head and the last `config.top_layers` layers; freeze the embeddings and the lower layers (Lee et al. 2019).

    A module above the last layer (a pooler) trains too. Costs a single forward pass of the frozen stages over the data, and full steps
    of the others. Raises InputError if the encoder has fewer layers.
    """
    layers = top_layers(stages, "top_layers", config.top_layers, ", or method=linear_probe for none")
    return Method(phases=(_top(stages, len(layers)),))


def once(stages: Stages) -> Stages:
    """Return the stages in order, each set of shared parameters once."""
    return tuple(dict.fromkeys(stages))


def top_layers(stages: Stages, option: str, k: int, otherwise: str = "") -> Stages:
    """Return the last `k` layers. Raises InputError if fewer than `k` layers have distinct parameters."""
    layers, count = once(stages)[1:], len(stages) - 1
    if not 1 <= k <= len(layers):
        shared = f" that share the parameters of {len(layers)}" if len(layers) < count else ""
        raise InputError(f"{option}={k}: the encoder has {count} layers{shared}; use 1 to {len(layers)}{otherwise}")
    return layers[-k:]


def _top(stages: Stages, k: int) -> Rules:
    """Return a rule that trains the last `k` stages and any module above them."""
    stages = once(stages)
    below = stages[: max(len(stages) - k, 0)]
    return {"top": (f"encoder/(?!({'|'.join(below)})/).*", Treatment())} if below else EVERYTHING


def embeddings_frozen(stages: Stages, config: Any) -> Method:
    """Train all parameters but the embeddings. Useful if the word embedding is half of the model: it has no gradient and no moments."""
    return Method(phases=({stages[0]: (f"encoder/{stages[0]}", FROZEN), **EVERYTHING},))


def bitfit(stages: Stages, config: Any) -> Method:
    """Train the biases (Ben Zaken et al. 2022), under 0.1% of a BERT. A step costs 2/3 of full fine-tuning: kernels have no gradient."""
    return Method(phases=({"biases": ("encoder/.*/bias", Treatment())},))


def layernorm(stages: Stages, config: Any) -> Method:
    """Train the scales and biases of the layer norms (Qi et al. 2022, "Parameter-efficient tuning on layer normalization"). The cost is
    that of `bitfit`."""
    return Method(phases=({"norms": (r"encoder/.*/(norm|\w+_norm)/(scale|bias)", Treatment())},))


def gradual_unfreezing(stages: Stages, config: Any) -> Method:
    """Train the head first, then unfreeze the stages one after the other from the last to the first (Howard & Ruder 2018, section 3.3).

    Each phase unfreezes `config.unfreeze_layers` stages. A phase takes `config.phase_percent` of the training (or `phase_epochs`, ...);
    with 0 the phases begin evenly spread over the first half. The paper unfreezes one of four layers each epoch. A phase costs as much as
    `top_k` with the same layers.
    """
    step = config.unfreeze_layers
    if step < 1:
        raise InputError(f"unfreeze_layers={step}: each phase must unfreeze at least one stage; use 1 or more")
    return Method(phases=({}, *(_top(stages, k) for k in range(step, len(once(stages)) + step, step))))


def chain_thaw(stages: Stages, config: Any) -> Method:
    """Train the head alone, then each stage alone from the first to the last, then everything (Felbo et al. 2017, section 3.3).

    The head trains in all phases; the paper freezes it while a stage trains. Phases begin as for `gradual_unfreezing`.
    """
    stage_phases = ({stage: (f"encoder/{stage}", Treatment())} for stage in once(stages))
    return Method(phases=({}, *stage_phases, EVERYTHING))


def llrd(stages: Stages, config: Any) -> Method:
    """Train each stage at `config.llrd_decay` (0.95) times the learning rate of the stage above: layer-wise learning-rate decay.

    Sun et al. 2019, section 5.3.3 (0.95 was best on IMDb). The last layer and the modules above it have the full learning rate. Costs
    nothing.
    """
    return Method(rates=_rates(stages, config.llrd_decay))


def discriminative(stages: Stages, config: Any) -> Method:
    """Train each stage at the learning rate of the stage above divided by `config.discriminative_factor` (2.6; Howard & Ruder 2018,
    section 3.2)."""
    if not config.discriminative_factor > 0:
        raise InputError(f"discriminative_factor={config.discriminative_factor:g} must be over 0")
    return Method(rates=_rates(stages, 1.0 / config.discriminative_factor))


def _rates(stages: Stages, decay: float) -> dict[str, tuple[str, float]]:
    return {stage: (stage, decay**depth) for depth, stage in enumerate(reversed(once(stages))) if depth}
