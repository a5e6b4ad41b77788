"""Which class of a checkpoint's head is which of a task's."""

import re
from collections.abc import Mapping, Sequence

import numpy as np

from research.errors import InputError


def in_order(tensors: Mapping[str, np.ndarray], theirs: Sequence[str], labels: Sequence[str], source: str) -> dict[str, np.ndarray]:
    """`tensors` with the classes of the head, which a checkpoint calls `theirs`, in the order of `labels`.

    Names count without case. A checkpoint that gives none ("LABEL_0", ...) is taken to have them in this order. Raises InputError where
    there is no head of classes, or its classes are not the task's.
    """
    sizes = {tensor.shape[-1] for name, tensor in tensors.items() if name.startswith("head/classifier/")}
    if not sizes:
        raise InputError(f"{source}: weights.head asks for its head, but it has no classifier; leave it out to begin with a new one")
    unnamed = all(re.fullmatch(r"LABEL_\d+", name) for name in theirs)
    known = {name.casefold(): place for place, name in enumerate(theirs)}
    same = len(labels) == max(sizes) if unnamed else known.keys() == {label.casefold() for label in labels}
    if not same:
        what = f"{max(sizes)} classes without names" if unnamed else f"the classes {', '.join(theirs)}"
        raise InputError(
            f"{source}: its head has {what}, but the task has {', '.join(labels)}; leave out weights.head to begin with a new one"
        )
    if unnamed:
        return dict(tensors)
    places = [known[label.casefold()] for label in labels]
    return {name: tensor[..., places] if name.startswith("head/classifier/") else tensor for name, tensor in tensors.items()}
