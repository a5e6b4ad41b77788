"""What a task is: a row of data that says how examples become inputs and targets."""

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Tfds:
    """Where a task lives in TensorFlow Datasets, and what its columns are called there."""

    name: str
    texts: tuple[str, ...]
    label: str
    splits: Mapping[str, str]
    """Our split -> theirs. A missing `dev` is cut from train. Splits whose labels are hidden (-1) are never listed."""


@dataclasses.dataclass(frozen=True)
class Task:
    """One row of the catalog.

    `texts` names the text columns of a file (two for pairs), `label` its target column. `labels` fixes the order of the
    classes; empty means the labels of the training split in natural order. `metric` selects the checkpoint on dev (higher is better).
    Precision, recall and f1 are those of the class `positive`; empty means the second of two classes, and the macro means above two.
    """

    name: str
    texts: tuple[str, ...] = ("text",)
    label: str = "label"
    labels: tuple[str, ...] = ()
    metric: str = "accuracy"
    positive: str = ""
    kind: str = "classification"
    tfds: Tfds | None = None
