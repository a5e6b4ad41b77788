"""The table of methods. A method is a function from the encoder's stages and the config to a `Method`; the training step does not
depend on the method. To add a method, add a function, a line in `METHODS` and one test.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from research.adapt import averaging, bottleneck, features, freezing, ia3, lora, perturb, prefix, regularize, vera
from research.adapt.base import Method
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
    "dora": lora.dora,
    "vera": vera.vera,
    "ia3": ia3.ia3,
    "houlsby": bottleneck.houlsby,
    "pfeiffer": bottleneck.pfeiffer,
    "parallel_adapter": bottleneck.parallel_adapter,
    "compacter": bottleneck.compacter,
    "prefix": prefix.prefix,
    "soft_prompt": prefix.soft_prompt,
    "chosen_layer": features.chosen_layer,
    "last4_concat": features.last4_concat,
    "scalar_mix": features.scalar_mix,
    "feature_bilstm": features.feature_bilstm,
    "feature_concat": features.feature_concat,
    "l2sp": regularize.l2sp,
    "mixout": regularize.mixout,
    "child_tuning": regularize.child_tuning,
    "noisytune": regularize.noisytune,
    "reinit_top": regularize.reinit_top,
    "rdrop": perturb.rdrop,
    "smart": perturb.smart,
    "freelb": perturb.freelb,
    "sam": perturb.sam,
    "ema": averaging.ema,
    "swa": averaging.swa,
}

# Default values by method, for fields that the config leaves empty. `rate` is the learning rate in units of `base_learning_rate`, that of
# full fine-tuning; methods without a row have 1. `pooling` is for `auto`. The rates were the best of those tried on the dev split of TREC-6
# after 8,192 examples with MiniLM's pooler; that of compacter is from its paper. `configs/ablations/rates.py` tries half and double.
WANTS: dict[str, dict[str, Any]] = {
    "full": {"rate": 1},
    "embeddings_frozen": {"rate": 1},
    "gradual_unfreezing": {"rate": 1},
    "chain_thaw": {"rate": 1},
    "top_k": {"rate": 4},
    "linear_probe": {"rate": 200, "pooling": "mean"},
    "bitfit": {"rate": 40},
    "layernorm": {"rate": 60},
    "lora": {"rate": 40},
    "dora": {"rate": 40},
    "vera": {"rate": 160},
    "ia3": {"rate": 120},
    "houlsby": {"rate": 20},
    "pfeiffer": {"rate": 40},
    "parallel_adapter": {"rate": 20},
    "compacter": {"rate": 60},
    "prefix": {"rate": 200},
    "soft_prompt": {"rate": 200},
    "chosen_layer": {"rate": 200, "pooling": "mean"},
    "last4_concat": {"rate": 200, "pooling": "mean"},
    "scalar_mix": {"rate": 200, "pooling": "mean"},
    "feature_bilstm": {"rate": 20, "pooling": "mean"},
    "feature_concat": {"rate": 60, "pooling": "mean"},
}


def recipe(stages: tuple[str, ...], config: Any) -> Recipe:
    """Return the recipe of the methods that `config.method` joins by `+`. Raises InputError for an unknown or repeated method."""
    names = known(config.method)
    parts = tuple(dataclasses.replace(METHODS[name](stages, config), name=name) for name in names)
    return Recipe(config.method, parts, stages)


def known(method: str) -> list[str]:
    """Return the method names that `method` joins by `+`. Raises InputError for an unknown or repeated name."""
    names = method.split("+")
    for name in names:
        if name not in METHODS:
            raise InputError(f"method {name!r} is not known; {nearest(name, METHODS)}")
        if names.count(name) > 1:
            raise InputError(f"method={method}: {name} stands there twice")
    return names


def wanted(method: str, field: str) -> list[Any]:
    """Return the defaults in `WANTS` for `field` ("rate", "pooling") of those methods in `method` that have one, in order."""
    return [WANTS[name][field] for name in known(method) if field in WANTS.get(name, {})]


def resolve(config: Any) -> None:
    """Set `learning_rate` and `data.seed` if the config leaves them empty. The learning rate is the lowest default of the methods,
    because the higher learning rates of added parameters destroy pretrained ones. The data seed is `seed`."""
    if config.learning_rate is None:
        config.learning_rate = config.base_learning_rate * min(wanted(config.method, "rate"), default=1)
    if config.data.seed is None:
        config.data.seed = config.seed
