"""The table of methods. A method is a function from the encoder's stages and the config to a `Method`; the training step never
knows which one runs. Adding a method is adding a function, its line in `METHODS`, and one test.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from research.adapt import freezing, lora
from research.adapt.method import Method
from research.adapt.recipe import Recipe
from research.errors import InputError, nearest

METHODS: dict[str, Callable[[tuple[str, ...], Any], Method]] = {
    "full": freezing.full,
    "linear_probe": freezing.linear_probe,
    "top_k": freezing.top_k,
    "bitfit": freezing.bitfit,
    "layernorm": freezing.layernorm,
    "embeddings_frozen": freezing.embeddings_frozen,
    "gradual_unfreezing": freezing.gradual_unfreezing,
    "chain_thaw": freezing.chain_thaw,
    "llrd": freezing.llrd,
    "discriminative": freezing.discriminative,
    "lora": lora.lora,
}

# What a method wants where the config leaves it empty: `rate` is in units of `base_learning_rate`, that of full fine-tuning.
WANTS: dict[str, dict[str, Any]] = {
    "linear_probe": {"rate": 40},
    "bitfit": {"rate": 20},
    "layernorm": {"rate": 20},
    "lora": {"rate": 20},
}


def recipe(stages: tuple[str, ...], config: Any) -> Recipe:
    """The methods that `config.method` joins by `+`. Raises InputError for one that is not known or stands there twice."""
    names = known(config.method)
    return Recipe(config.method, tuple(dataclasses.replace(METHODS[name](stages, config), name=name) for name in names))


def known(method: str) -> list[str]:
    """The names in `method`, which are joined by `+`. Raises InputError as `recipe` does."""
    names = method.split("+")
    for name in names:
        if name not in METHODS:
            raise InputError(f"method {name!r} is not known; {nearest(name, METHODS)}")
        if names.count(name) > 1:
            raise InputError(f"method={method}: {name} stands there twice")
    return names


def settle(config: Any) -> None:
    """Fills what the config leaves to the method: `learning_rate` and `pooling`."""
    wants = {key: value for name in known(config.method)[::-1] for key, value in WANTS.get(name, {}).items()}
    if config.learning_rate is None:
        config.learning_rate = config.base_learning_rate * wants.get("rate", 1)
    if config.pooling is None:
        config.pooling = wants.get("pooling", "pooler")
