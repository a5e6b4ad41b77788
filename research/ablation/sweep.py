"""Functions that build sweeps: lists with one flat dict of config overrides per run. Imports no jax."""

import functools
import importlib.util
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from research.config import durations, fields
from research.errors import InputError

Overrides = dict[str, Any]


def product(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """Return every combination of one dict from each sweep. Raises InputError if two sweeps set the same field."""
    return [_joined(dicts) for dicts in itertools.product(*sweeps)]


def zip_(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """Join the i-th dicts of all sweeps, for each i. Raises InputError if the sweeps differ in length."""
    if len({len(sweep) for sweep in sweeps}) > 1:
        raise InputError(f"zip_ needs sweeps of the same length, not of {', '.join(str(len(sweep)) for sweep in sweeps)}")
    return [_joined(dicts) for dicts in zip(*sweeps, strict=True)]


def chain(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """Concatenate the sweeps."""
    return [dict(overrides) for sweep in sweeps for overrides in sweep]


def over(field: str, values: Iterable[Any]) -> list[Overrides]:
    """Return a sweep that sets `field` to each of the values."""
    return [{field: value} for value in values]


def seeds(count: int) -> list[Overrides]:
    """Return a sweep over the seeds 0 to `count` - 1."""
    return over("seed", range(count))


def _joined(dicts: Iterable[Overrides]) -> Overrides:
    joined: Overrides = {}
    for overrides in dicts:
        if repeated := joined.keys() & overrides.keys():
            raise InputError(f"the sweep sets {sorted(repeated)[0]} twice in one run")
        joined |= overrides
    return joined


def module(path: str) -> tuple[ModuleType, str]:
    """Import FILE.py of `path` = `FILE.py[:WORDS]` and return the module and the words. Raises InputError if the file does not exist."""
    file, _, words = path.partition(":")
    if not Path(file).is_file():
        raise InputError(f"ablation file {file!r} does not exist; ready ablations are in configs/ablations/ and configs/papers/")
    spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", Path(file).stem), file)
    imported = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec.loader.exec_module(imported)
    finally:
        sys.path.pop(0)
    return imported, words


def question(path: str) -> str:
    """Return the first paragraph of the docstring of the sweep's file."""
    return " ".join((module(path)[0].__doc__ or "").strip().partition("\n\n")[0].split())


def load(path: str, changes: Sequence[str] = ()) -> tuple[Callable[[], ConfigDict], list[Overrides]]:
    """Return a function that makes the base config, and the sweep, of FILE.py[:WORDS], which defines `base(words)` and `sweep(words)`.

    `changes` are arguments of the form `--config.NAME=VALUE` that change the base config. Raises InputError if the file does not exist or
    lacks one of the functions, and on a change of a field that the sweep sets. The returned function raises it on an invalid change.
    """
    file, (imported, words) = path.partition(":")[0], module(path)
    for name in ("base", "sweep"):
        if not hasattr(imported, name) and hasattr(imported, "published"):
            missing = ", ".join(imported.published().blocked_by)
            raise InputError(f"{file}: no cell of this table can be run yet; the project lacks {missing}")
        if not hasattr(imported, name):
            raise InputError(f"{file}: function {name}(words) is missing; an ablation file defines base(words) and sweep(words)")
    sweep, base = imported.sweep(words), functools.partial(imported.base, words)
    for name in _names(changes):
        if any(name in overrides for overrides in sweep):
            raise InputError(f"--config.{name}: the sweep of {file} sets {name} itself; remove the flag, or select runs with --only")
    return (functools.partial(with_changes, base, tuple(changes)) if changes else base), sweep


def with_changes(base: Callable[[], ConfigDict], changes: Sequence[str]) -> ConfigDict:
    """Return the base config with `changes` of the form `--config.NAME=VALUE`. Raises InputError on an invalid change."""
    config, values = base(), flags.FlagValues()
    for name in _names(changes):
        fields.check_field(config, name)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=["", *changes])
        values(["", *changes])
    except (flags.Error, AttributeError, TypeError, ValueError, KeyError) as error:
        raise InputError(str(error).splitlines()[0]) from None
    config = values["config"].value
    durations.resolve_units(config, _names(changes))
    return config


def _names(changes: Iterable[str]) -> list[str]:
    """Return the config fields that the changes set."""
    return [change.lstrip("-").partition("=")[0].removeprefix("no").removeprefix("config.") for change in changes]


def configs(base: Callable[[], ConfigDict], sweep: Iterable[Overrides]) -> list[tuple[Overrides, ConfigDict]]:
    """Return the overrides and the full config of each run. Raises InputError on an unknown field."""
    return [(overrides, fields.override(base(), overrides)) for overrides in sweep]
