"""The config of a run, as its workdir holds it. Named as a config file, with the path of a `config.json` as its words. Imports no jax."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research import storage
from research.config import fields
from research.errors import InputError


def get_config(path: str) -> ConfigDict:
    """Return the config that the file `path` holds; fields that are newer than the run have their defaults.

    Raises InputError where the file cannot be read or is no run's config.
    """
    if not (file := Path(path)).is_file():
        raise InputError(f"{file.parent}: no {file.name} there; train first, or give the --workdir of a run")
    saved = storage.read_json(file, "task", "model", "method", "data")
    c = fields.base(saved["task"], {"model": saved["model"], "method": saved["method"], "data": saved["data"]["source"]})
    for name, value in flat(saved).items():
        if name not in fields.field_names(c) and not name.startswith("no_decay."):
            raise InputError(f"{path}: field {name!r} is of another version of this program, which cannot use the run")
        owner, _, field = name.rpartition(".")
        try:
            (c[owner] if owner else c)[field] = value
        except (TypeError, ValueError):
            raise InputError(f"{path}: {name} cannot be {value!r}") from None
    return c


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted name -> value, of a config as a dict."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
