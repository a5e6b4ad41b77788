"""The table of methods. A method is a pure function from the encoder's stages and the config to rules; the training
step never knows which one runs. Adding a method is adding one function here, its name in `METHODS`, and one test.
"""

from collections.abc import Callable, Mapping
from typing import Any

from research.errors import InputError, nearest
from research.params.plan import FROZEN, Fate, Rules

Method = Callable[[tuple[str, ...], Mapping[str, Any]], Rules]

HEAD = {"head": ("head", Fate())}  # the head always trains, whatever the method


def full(stages: tuple[str, ...], config: Mapping[str, Any]) -> Rules:
    """Everything trains (Devlin et al. 2019, section 3.2)."""
    return {**HEAD, "encoder": ("encoder", Fate())}


def linear_probe(stages: tuple[str, ...], config: Mapping[str, Any]) -> Rules:
    """Only the head trains, on frozen features. Costs one forward pass of the encoder."""
    return {**HEAD, "encoder": ("encoder", FROZEN)}


def top_k(stages: tuple[str, ...], config: Mapping[str, Any]) -> Rules:
    """The head and the last `config.top_layers` layers train; embeddings and lower layers are frozen (Lee et al. 2019).

    What stands above the last layer (a pooler) trains with it. Raises InputError when there are fewer layers than asked for.
    """
    layers, k = stages[1:], config["top_layers"]
    if not 1 <= k <= len(layers):
        raise InputError(f"top_layers={k}: the encoder has {len(layers)} layers; use 1 to {len(layers)}, or method=linear_probe for none")
    frozen = (stages[0], *layers[: len(layers) - k])
    return {**HEAD, **{stage: (f"encoder/{stage}", FROZEN) for stage in frozen}, "top": ("encoder", Fate())}


METHODS: dict[str, Method] = {"full": full, "linear_probe": linear_probe, "top_k": top_k}


def rules_for(method: str, stages: tuple[str, ...], config: Mapping[str, Any]) -> Rules:
    """The rules of the method called `method`, after those of `config.freeze` (patterns apart by commas).

    Raises InputError for an unknown method.
    """
    if method not in METHODS:
        raise InputError(f"method {method!r} is not known; {nearest(method, METHODS)}")
    asked = [pattern.strip() for pattern in config["freeze"].split(",") if pattern.strip()]
    return {**{f"freeze {pattern}": (pattern, FROZEN) for pattern in asked}, **METHODS[method](stages, config)}
