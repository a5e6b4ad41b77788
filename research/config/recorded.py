"""The config file that loads the saved config of a run, called as `recorded.py:RUN/config.json`. Imports no jax."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research import storage
from research.config import fields
from research.errors import InputError


def get_config(path: str) -> ConfigDict:
    """Return the config saved in the file `path`; fields that were added after the run have their defaults.

    Raise InputError if the file cannot be read or is not the config of a run.
    """
    if not (file := Path(path)).is_file():
        raise InputError(f"{file.parent}: no {file.name} in this folder; train first, or give the --workdir of a run")
    saved = storage.read_json(file, "task", "model", "method", "data")
    c = fields.base(saved["task"], {"model": saved["model"], "method": saved["method"], "data": saved["data"]["source"]})
    for name, value in flat(saved).items():
        if name not in fields.field_names(c) and not name.startswith("no_decay."):
            raise InputError(f"{path}: field {name!r} is of another version of this program; this version cannot use the run")
        owner, _, field = name.rpartition(".")
        try:
            (c[owner] if owner else c)[field] = value
        except (TypeError, ValueError):
            raise InputError(f"{path}: {name} cannot be {value!r}") from None
    return c


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return dotted name -> value for a config given as a nested dict."""
    values = {}
    for key, value in tree.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return values
