"""Groups of runs of a sweep that may be trained together, decided from their configs."""

import json

from ml_collections import ConfigDict

SCALARS = ("seed", "base_learning_rate", "learning_rate", "weight_decay", "label_smoothing")
DROPOUT = ("dropout", "attention_dropout")
MOST = 32


def groups(configs: dict[str, ConfigDict]) -> list[list[str]]:
    """Return the run ids in groups that can train together, in order of appearance, at most `MOST` in a group.

    Runs of a group differ only in `SCALARS` and dropout rates. A dropout rate is 0 for all of them or for none, since a step without
    dropout is a different program. `fleet.objection` checks the rest, such as the method.
    """
    by_structure: dict[str, list[str]] = {}
    for run_id, config in configs.items():
        by_structure.setdefault(structure(config), []).append(run_id)
    return [ids[i : i + MOST] for ids in by_structure.values() for i in range(0, len(ids), MOST)]


def structure(config: ConfigDict) -> str:
    """Return a key that is equal for configs whose training steps are the same program."""
    rates = {name: None if config[name] is None else bool(config[name]) for name in DROPOUT}
    return json.dumps(config.to_dict() | dict.fromkeys(SCALARS) | rates, sort_keys=True)
