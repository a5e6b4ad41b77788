"""Which runs of a sweep may be trained together, by their configs alone."""

import json
from typing import Any

from ml_collections import ConfigDict

SCALARS = ("learning_rate", "weight_decay", "dropout", "attention_dropout", "label_smoothing")
MOST = 32


def groups(configs: dict[str, ConfigDict]) -> list[list[str]]:
    """The run ids, those that can train together side by side, in order of appearance.

    They differ in `seed` and SCALARS alone, and no scalar is 0 for one and something for another: a step without dropout or decay is
    another program. Methods are not looked into: `fleet.run` sees what a member costs.
    """
    found: dict[str, list[str]] = {}
    for run_id, config in configs.items():
        found.setdefault(json.dumps(_shape(config), sort_keys=True), []).append(run_id)
    return [ids[i : i + MOST] for ids in found.values() for i in range(0, len(ids), MOST)]


def _shape(config: ConfigDict) -> dict[str, Any]:
    scalars = {name: bool(config[name]) if config[name] is not None else None for name in SCALARS}
    return config.to_dict() | scalars | {"seed": None, "base_learning_rate": None}
