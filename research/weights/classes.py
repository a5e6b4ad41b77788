"""The classes of a checkpoint's head: their names, and how they are matched with the classes of a task."""

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

    `config` is the content of the `config.json` that describes the head, and `numbered` the classes of a task that fixes their order (see
    `places`). `source` and `field` are the folder and the config field to name in messages. Raises InputError where there is no
    classifier, or its classes are not the task's.
    """
    size = outputs(tensors)
    if not size:
        raise InputError(f"{source}: {field} asks for its head, but it has no classifier; leave out {field} to begin with a new one")
    check_kind(config, size, source, field)
    order = places(names(config, size, source), labels, numbered, source, field)
    return {name: tensor[..., order] if name.startswith(LAST) else tensor for name, tensor in tensors.items()}


def outputs(tensors: Mapping[str, np.ndarray]) -> int:
    """Return the number of outputs of the head among `tensors`, 0 where there is none."""
    return max((tensor.shape[-1] for name, tensor in tensors.items() if name.startswith(LAST)), default=0)


def check_kind(config: Mapping[str, Any], size: int, source: str, field: str) -> None:
    """Raise InputError for a head that does not choose one of several classes, since softmax does not apply to its outputs."""
    kind = config.get("problem_type")
    if kind not in (None, "single_label_classification") or size == 1:
        what = f"problem_type {kind!r}" if kind else "one output"
        raise InputError(f"{source}: its head has {what}, but only heads that choose one of several classes are loaded; leave out {field}")


def names(config: Mapping[str, Any], size: int, source: str) -> tuple[str, ...]:
    """Return the names of the `size` outputs of a head, in order: `id2label` of `config`, interpreted as `transformers` does.

    Without `id2label` they are LABEL_0, LABEL_1 and so on. Raises InputError where `id2label` cannot be read or does not have `size` names.
    """
    id2label, count = config.get("id2label"), config.get("num_labels")
    if id2label is not None and not isinstance(id2label, dict):
        raise InputError(f"{source}: id2label in config.json is a {type(id2label).__name__}, not an object of numbers and names")
    if not isinstance(count, int | None):
        raise InputError(f"{source}: num_labels in config.json is {count!r}, not a number of classes")
    if id2label is None or count not in (None, len(id2label)):  # transformers, too, ignores names whose count is not num_labels
        id2label = {number: f"LABEL_{number}" for number in range(size if count is None else count)}
    try:
        by_number = {int(number): name for number, name in id2label.items()}
    except ValueError:
        raise InputError(f"{source}: id2label in config.json must map numbers to names, but has {shortened(list(id2label))}") from None
    if sorted(by_number) != list(range(size)) or None in by_number.values():
        shown = ", ".join(f"{number}: {name}" for number, name in sorted(by_number.items())[:4]) or "no classes"
        raise InputError(f"{source}: config.json names {len(by_number)} classes ({shown}), but the head has {size} outputs")
    return tuple(str(by_number[number]) for number in range(size))


def places(head_names: Sequence[str], labels: Sequence[str], numbered: Sequence[str], source: str, field: str) -> list[int]:
    """Return, for each of `labels`, the index of the same class among `head_names`.

    Names are compared exactly, then without case, then as numbers: "LABEL_3" and "3" are class 3, and so is the fourth of `numbered`, the
    classes of a task that fixes their order. Raises InputError where no comparison pairs all names one to one.
    """
    numbers = {label: str(number) for number, label in enumerate(numbered)}
    key_functions = ((str, str), (str.casefold, str.casefold), (_number, _number), (_number, lambda label: numbers.get(label, label)))
    for head_key, label_key in key_functions:
        keys, wanted = [head_key(name) for name in head_names], [label_key(label) for label in labels]
        if len(set(keys)) == len(keys) and sorted(keys) == sorted(wanted):
            return [keys.index(key) for key in wanted]
    raise InputError(
        f"{source}: its head has the classes {', '.join(head_names)}, but the task has {', '.join(labels)}; leave out {field} to begin "
        "with a new one, or name the classes in id2label of its config.json"
    )


def _number(name: str) -> str:
    match = re.fullmatch(r"(?:label_)?(\d+)", name.casefold())
    return str(int(match[1])) if match else name.casefold()
