"""The config of a run, as its workdir holds it. Named as a config file, with the path of a `config.json` as its words. Imports no jax."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from configs import common
from research.errors import InputError


def get_config(path: str) -> ConfigDict:
    """Return the config that the file `path` holds; fields that are newer than the run have their defaults.

    Raises InputError where the file cannot be read or is no run's config.
    """
    saved = read(Path(path))
    try:
        c = common.base(saved["task"], {name: saved[name] for name in ("method", "model")} | {"data": saved["data"]["source"]})
    except (KeyError, TypeError):
        raise InputError(f"{path}: not the config of a run, which has task, model, method and data") from None
    for name, value in flat(saved).items():
        if name not in common.field_names(c) and not name.startswith("no_decay."):
            raise InputError(f"{path}: field {name!r} is of another version of this program, which cannot use the run")
        owner, _, field = name.rpartition(".")
        try:
            (c[owner] if owner else c)[field] = value
        except (TypeError, ValueError):
            raise InputError(f"{path}: {name} cannot be {value!r}") from None
    return c


def read(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file. Raises InputError where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise InputError(f"{path.parent}: no {path.name} there; train first, or give the --workdir of a run") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}); the file is damaged") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: not a JSON object; the file is damaged")
    return found


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted name -> value, of a config as a dict."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
