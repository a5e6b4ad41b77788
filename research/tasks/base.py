"""The definition of a task: how examples become inputs and targets."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A task's dataset in TensorFlow Datasets, with the names of its text and label columns there."""

    name: str
    texts: tuple[str, ...]
    label: str
    splits: Mapping[str, str]
    """Split of this project -> split of the dataset. A missing `dev` is cut from train. Splits with hidden labels (-1) are left out."""


@dataclasses.dataclass(frozen=True)
class Task:
    """An entry of the catalog.

    `texts` names the text columns of a file (two for pairs), and `label` names the target column. `labels` fixes the order of the
    classes; empty means the labels of the training split in natural order. `metric` selects the best checkpoint on dev (higher is better).
    Precision, recall and f1 are of the class `positive`. If it is empty, they are of the second of two classes, or macro means above two.
    """

    name: str
    texts: tuple[str, ...] = ("text",)
    label: str = "label"
    labels: tuple[str, ...] = ()
    metric: str = "accuracy"
    positive: str = ""
    kind: str = "classification"
    tfds: Tfds | None = None
