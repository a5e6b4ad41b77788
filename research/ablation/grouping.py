"""Which runs of a sweep may be trained together, by their configs alone."""

import json

from ml_collections import ConfigDict

SCALARS = ("seed", "base_learning_rate", "learning_rate", "weight_decay", "label_smoothing")
DROPOUT = ("dropout", "attention_dropout")
MOST = 32


def groups(configs: dict[str, ConfigDict]) -> list[list[str]]:
    """Return lists of run ids, those that can train together in one list, in order of appearance.

    They differ in `SCALARS` and in dropout rates alone, and no dropout rate is 0 for one and more for another: a step without dropout is
    another program. Methods are not looked into: `fleet.objection` does.
    """
    found: dict[str, list[str]] = {}
    for run_id, config in configs.items():
        found.setdefault(structure(config), []).append(run_id)
    return [ids[i : i + MOST] for ids in found.values() for i in range(0, len(ids), MOST)]


def structure(config: ConfigDict) -> str:
    """Return a key that is equal for configs whose training steps are one program."""
    rates = {name: None if config[name] is None else bool(config[name]) for name in DROPOUT}
    return json.dumps(config.to_dict() | dict.fromkeys(SCALARS) | rates, sort_keys=True)
