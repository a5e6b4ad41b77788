"""From the config that a user asked for to the config of a run. Imports no jax."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ml_collections import ConfigDict, FrozenConfigDict

from research.config import ranges
from research.errors import InputError, nearest


class MethodRow(Protocol):
    """The part of a method's row that a config needs."""

    rate: float
    modifies: bool
    options: tuple[str, ...]


def resolve(
    config: ConfigDict,
    methods: Mapping[str, MethodRow],
    task_of: Callable[[ConfigDict], Any],
    given: Iterable[str] = (),
) -> FrozenConfigDict:
    """Return the config of a run: frozen, with a learning rate and a data seed, and checked.

    An empty `learning_rate` becomes `base_learning_rate` times the lowest rate of the methods, because the higher learning rates of added
    parameters destroy pretrained ones. An empty `data.seed` becomes `seed`. `pooling` and `precision` may stay `auto` until the
    weights are read. `methods` is the table of methods, `task_of` returns the task of a config, and `given` names the fields that the user
    set, all of which must have an effect.

    Raise InputError for everything that is wrong with the config whatever the data and the weights are: an unknown task, metric, method
    or choice, a value out of range, an option of a method that is not chosen.
    """
    c = ConfigDict(config).copy_and_resolve_references()
    names = method_names(c.method, methods)
    if c.learning_rate is None:
        rows = [methods[name] for name in names]
        c.learning_rate = c.base_learning_rate * min(row.rate for row in [row for row in rows if not row.modifies] or rows)
    if c.data.seed is None:
        c.data.seed = c.seed
    ranges.check_ranges(c)
    _check_used(c.method, names, methods, given)
    task_of(c)
    return FrozenConfigDict(c)


def method_names(method: str, methods: Iterable[str]) -> list[str]:
    """Return the method names that `method` joins by `+`. Raise InputError for a name that is repeated or not among `methods`."""
    names = method.split("+")
    for name in names:
        if name not in methods:
            raise InputError(f"method {name!r} is not known; {nearest(name, methods)}")
        if names.count(name) > 1:
            raise InputError(f"method={method}: {name} stands there twice")
    return names


def _check_used(method: str, names: Iterable[str], methods: Mapping[str, MethodRow], given: Iterable[str]) -> None:
    """Raise InputError for an option in `given` of a method that is not among `names`."""
    for field in given:
        owners = [name for name, row in methods.items() if field in row.options or field.partition(".")[0] in row.options]
        if owners and not set(owners) & set(names):
            raise InputError(f"--config.{field}= has no effect with method={method}; it is an option of {' and '.join(owners)}")
