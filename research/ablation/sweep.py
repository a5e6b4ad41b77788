"""A sweep is a list of flat dicts of what differs from run to run; these functions write such lists. Imports no jax."""

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
    """Every combination of one dict of each sweep. Raises InputError where two of them set the same field."""
    return [_joined(dicts) for dicts in itertools.product(*sweeps)]


def zip_(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """The first dicts joined, the second dicts joined, ... Raises InputError where the sweeps differ in length."""
    if len({len(sweep) for sweep in sweeps}) > 1:
        raise InputError(f"zip_ joins sweeps of one length, not of {', '.join(str(len(sweep)) for sweep in sweeps)}")
    return [_joined(dicts) for dicts in zip(*sweeps, strict=True)]


def chain(*sweeps: Sequence[Overrides]) -> list[Overrides]:
    """One sweep after the other."""
    return [dict(overrides) for sweep in sweeps for overrides in sweep]


def over(field: str, values: Iterable[Any]) -> list[Overrides]:
    """`field` takes each of the values."""
    return [{field: value} for value in values]


def seeds(count: int) -> list[Overrides]:
    """Seeds 0 to `count` - 1."""
    return over("seed", range(count))


def _joined(dicts: Iterable[Overrides]) -> Overrides:
    joined: Overrides = {}
    for overrides in dicts:
        if both := joined.keys() & overrides.keys():
            raise InputError(f"the sweep sets {sorted(both)[0]} twice in one run")
        joined |= overrides
    return joined


def module(path: str) -> tuple[ModuleType, str]:
    """The module in FILE.py of `FILE.py[:WORDS]`, and the words. Raises InputError where there is no such file."""
    file, _, words = path.partition(":")
    if not Path(file).is_file():
        raise InputError(f"ablation file {file!r} is not there; the ready ones are in configs/ablations/ and configs/papers/")
    spec = importlib.util.spec_from_file_location(re.sub(r"\W", "_", Path(file).stem), file)
    found = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path.cwd()))
    try:
        spec.loader.exec_module(found)
    finally:
        sys.path.pop(0)
    return found, words


def question(path: str) -> str:
    """The first paragraph of what the sweep's file says of itself."""
    return " ".join((module(path)[0].__doc__ or "").strip().partition("\n\n")[0].split())


def load(path: str, changes: Sequence[str] = ()) -> tuple[Callable[[], ConfigDict], list[Overrides]]:
    """What makes the base config, and the sweep, of FILE.py[:WORDS], which defines `base(words)` and `sweep(words)`.

    `changes` are arguments like `--config.NAME=VALUE` that change the base. Raises InputError where the file cannot be read or lacks one
    of the functions, and on a change that is not understood, or of a field that the sweep itself sets.
    """
    file, (found, words) = path.partition(":")[0], module(path)
    for name in ("base", "sweep"):
        if not hasattr(found, name) and hasattr(found, "published"):
            raise InputError(f"{file}: nothing of this table can run yet; it waits for {', '.join(found.published().blocked_by)}")
        if not hasattr(found, name):
            raise InputError(f"{file}: no function {name}(words) there; an ablation has base(words) and sweep(words)")
    sweep, base = found.sweep(words), functools.partial(found.base, words)
    for name in _names(changes):
        if any(name in overrides for overrides in sweep):
            raise InputError(f"--config.{name}: the sweep of {file} sets {name} itself; leave it out, or choose runs with --only")
    return (functools.partial(changed, base, tuple(changes)) if changes else base), sweep


def changed(base: Callable[[], ConfigDict], changes: Sequence[str]) -> ConfigDict:
    """The base config with changes like `--config.NAME=VALUE`. Raises InputError on one that is not understood."""
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
    return [change.lstrip("-").partition("=")[0].removeprefix("no").removeprefix("config.") for change in changes]


def configs(base: Callable[[], ConfigDict], sweep: Iterable[Overrides]) -> list[tuple[Overrides, ConfigDict]]:
    """Each run's overrides and its whole config. Raises InputError on a field that is not known."""
    return [(overrides, fields.override(base(), overrides)) for overrides in sweep]
