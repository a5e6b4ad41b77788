"""The table of methods. A method is a function from the encoder's stages and the config to a `Method`; the training step does not
depend on the method. To add a method, add a function with a docstring, a row of `METHODS`, its options in `research/config/options.py` and
a row in `README.md`. `tests/adapt/table_test.py` tests every row; add one test of what is particular to the method.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from research.adapt import averaging, bottleneck, features, freezing, ia3, lora, perturb, prefix, regularize, vera
from research.adapt.base import Method
from research.adapt.recipe import Recipe
from research.config.durations import UNITS
from research.config.resolve import method_names

PHASE = tuple(f"phase_{unit}" for unit in UNITS)


class Row(NamedTuple):
    """A method, and the defaults of its fields.

    `rate` is the learning rate in units of `base_learning_rate`, that of full fine-tuning. A method that `modifies` the training of
    whatever trains leaves the rate to the method that it is joined with. `pooling` is for `auto`, if the method prefers one. `options`
    are the fields or groups of fields in `research/config/options.py` that the method reads.
    """

    make: Callable[[tuple[str, ...], Any], Method]
    rate: float
    modifies: bool = False
    pooling: str = ""
    options: tuple[str, ...] = ()


# The rates were the best of those tried on the dev split of TREC-6 after 8,192 examples with MiniLM's pooler; that of compacter is from its
# paper. Those of chain_thaw and mixout were doubled after runs on 500 examples of TREC-6, MPQA and CR each (adapt/README.md).
# `configs/ablations/rates.py` tries half and double.
METHODS: dict[str, Row] = {
    "full": Row(freezing.full, rate=1),
    "linear_probe": Row(freezing.linear_probe, rate=200, pooling="mean"),
    "top_k": Row(freezing.top_k, rate=4, options=("top_layers",)),
    "bitfit": Row(freezing.bitfit, rate=40),
    "layernorm": Row(freezing.layernorm, rate=60),
    "embeddings_frozen": Row(freezing.embeddings_frozen, rate=1),
    "gradual_unfreezing": Row(
        freezing.gradual_unfreezing,
        rate=1,
        options=(
            "unfreeze_layers",
            *PHASE,
        ),
    ),
    "chain_thaw": Row(freezing.chain_thaw, rate=2, options=(*PHASE,)),
    "llrd": Row(freezing.llrd, rate=1, modifies=True, options=("llrd_decay",)),
    "discriminative": Row(freezing.discriminative, rate=1, modifies=True, options=("discriminative_factor",)),
    "lora": Row(lora.lora, rate=40, options=("lora",)),
    "dora": Row(lora.dora, rate=40, options=("dora",)),
    "vera": Row(vera.vera, rate=160, options=("vera",)),
    "ia3": Row(ia3.ia3, rate=120, options=("ia3",)),
    "houlsby": Row(bottleneck.houlsby, rate=20, options=("houlsby",)),
    "pfeiffer": Row(bottleneck.pfeiffer, rate=40, options=("pfeiffer",)),
    "parallel_adapter": Row(bottleneck.parallel_adapter, rate=20, options=("parallel_adapter",)),
    "compacter": Row(bottleneck.compacter, rate=60, options=("compacter",)),
    "prefix": Row(prefix.prefix, rate=200, options=("prefix",)),
    "soft_prompt": Row(prefix.soft_prompt, rate=200, options=("soft_prompt",)),
    "chosen_layer": Row(features.chosen_layer, rate=200, pooling="mean", options=("feature_layer",)),
    "last4_concat": Row(features.last4_concat, rate=200, pooling="mean"),
    "scalar_mix": Row(features.scalar_mix, rate=200, pooling="mean"),
    "feature_bilstm": Row(features.feature_bilstm, rate=20, pooling="mean", options=("feature_bilstm",)),
    "feature_concat": Row(features.feature_concat, rate=60, pooling="mean", options=("feature_concat",)),
    "l2sp": Row(regularize.l2sp, rate=1, modifies=True, options=("l2sp",)),
    "mixout": Row(regularize.mixout, rate=2, modifies=True, options=("mixout_p",)),
    "child_tuning": Row(regularize.child_tuning, rate=1, modifies=True, options=("child_tuning",)),
    "noisytune": Row(regularize.noisytune, rate=1, modifies=True, options=("noisytune_lambda",)),
    "reinit_top": Row(regularize.reinit_top, rate=1, modifies=True, options=("reinit_layers",)),
    "rdrop": Row(perturb.rdrop, rate=1, modifies=True, options=("rdrop_alpha",)),
    "smart": Row(perturb.smart, rate=1, modifies=True, options=("smart",)),
    "freelb": Row(perturb.freelb, rate=1, modifies=True, options=("freelb",)),
    "sam": Row(perturb.sam, rate=1, modifies=True, options=("sam_rho",)),
    "ema": Row(averaging.ema, rate=1, modifies=True, options=("ema_decay",)),
    "swa": Row(averaging.swa, rate=1, modifies=True, options=("swa_percent",)),
}


def recipe(stages: tuple[str, ...], config: Any) -> Recipe:
    """Return the recipe of the methods that `config.method` joins by `+`. Raises InputError for an unknown or repeated method."""
    names = method_names(config.method, METHODS)
    parts = tuple(dataclasses.replace(METHODS[name].make(stages, config), name=name) for name in names)
    return Recipe(config.method, parts, stages)


def poolings(method: str) -> list[str]:
    """Return the poolings that the methods joined in `method` prefer, in order."""
    return [METHODS[name].pooling for name in method_names(method, METHODS) if METHODS[name].pooling]
