"""The classes of a checkpoint's head: what they are called, and which of them is which class of a task."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from research.errors import InputError
from research.weights.name_map import shortened

LAST = "head/classifier/"  # the layer whose outputs are the classes


def in_order(
    tensors: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    labels: Sequence[str],
    numbered: Sequence[str],
    source: str,
    field: str = "weights.head",
) -> dict[str, np.ndarray]:
    """Return `tensors` with the outputs of the head in the order of `labels`.

    `config` is the contents of the `config.json` that describes the head, and `numbered` the classes whose numbers are fixed by the task
    (see `places`). `source` and `field` name the folder and the config's field in messages. Raises InputError where there is no head of
    classes, or its classes are not the task's.
    """
    size = outputs(tensors)
    if not size:
        raise InputError(f"{source}: {field} asks for its head, but it has no classifier; leave it out to begin with a new one")
    check_kind(config, size, source, field)
    order = places(names(config, size, source), labels, numbered, source, field)
    return {name: tensor[..., order] if name.startswith(LAST) else tensor for name, tensor in tensors.items()}


def outputs(tensors: Mapping[str, np.ndarray]) -> int:
    """Return the number of outputs of the head among `tensors`, 0 where there is none."""
    return max((tensor.shape[-1] for name, tensor in tensors.items() if name.startswith(LAST)), default=0)


def check_kind(config: Mapping[str, Any], size: int, source: str, field: str) -> None:
    """Raise InputError for a head that does not choose one class of several: softmax over its outputs would mean nothing."""
    kind = config.get("problem_type")
    if kind not in (None, "single_label_classification") or size == 1:
        what = f"problem_type {kind!r}" if kind else "one output"
        raise InputError(f"{source}: its head has {what}, but only heads that choose one of several classes are read; leave out {field}")


def names(config: Mapping[str, Any], size: int, source: str) -> tuple[str, ...]:
    """Return what `config` calls the `size` outputs of its head, in their order: its `id2label`, read as `transformers` reads it.

    Without names they are LABEL_0, LABEL_1 and so on. Raises InputError where `id2label` cannot be read or has another number of classes.
    """
    found, count = config.get("id2label"), config.get("num_labels")
    if found is not None and not isinstance(found, dict):
        raise InputError(f"{source}: id2label in config.json is a {type(found).__name__}, not an object of numbers and names")
    if not isinstance(count, int | None):
        raise InputError(f"{source}: num_labels in config.json is {count!r}, not a number of classes")
    if found is None or count not in (None, len(found)):  # transformers, too, drops names that num_labels disagrees with
        found = {number: f"LABEL_{number}" for number in range(size if count is None else count)}
    try:
        by_number = {int(number): name for number, name in found.items()}
    except ValueError:
        raise InputError(f"{source}: id2label in config.json must map numbers to names, but has {shortened(list(found))}") from None
    if sorted(by_number) != list(range(size)) or None in by_number.values():
        shown = ", ".join(f"{number}: {name}" for number, name in sorted(by_number.items())[:4]) or "no classes"
        raise InputError(f"{source}: config.json names {len(by_number)} classes ({shown}), but the head has {size} outputs")
    return tuple(str(by_number[number]) for number in range(size))


def places(theirs: Sequence[str], labels: Sequence[str], numbered: Sequence[str], source: str, field: str) -> list[int]:
    """Return, for each of `labels`, the place of the same class among `theirs`.

    Names are compared as they stand, then without case, then as numbers: "LABEL_3" and "3" are class 3, and so is the fourth of
    `numbered`, the classes of a task that fixes their order. Raises InputError where none of these pairs all of them one to one.
    """
    numbers = {label: str(number) for number, label in enumerate(numbered)}
    ways = ((str, str), (str.casefold, str.casefold), (_number, _number), (_number, lambda label: numbers.get(label, label)))
    for their_key, our_key in ways:
        keys, wanted = [their_key(name) for name in theirs], [our_key(label) for label in labels]
        if len(set(keys)) == len(keys) and sorted(keys) == sorted(wanted):
            return [keys.index(key) for key in wanted]
    raise InputError(
        f"{source}: its head has the classes {', '.join(theirs)}, but the task has {', '.join(labels)}; leave out {field} to begin with "
        "a new one, or name the classes in id2label of its config.json"
    )


def _number(name: str) -> str:
    match = re.fullmatch(r"(?:label_)?(\d+)", name.casefold())
    return str(int(match[1])) if match else name.casefold()
