"""Examples in memory: texts and label names, in splits, with a fingerprint."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

from research.tasks.base import Label, Task

SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples in order. `ids` are stable and unique inside a split: "train-17" is row 17 of the source, counted from 0.

    `texts` holds (text,) or (text_a, text_b) for each example, `labels` the labels; `labels` is () for unlabelled examples."""

    ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[Label, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Iterable[int]) -> "Examples":
        """Return the examples at `indices`, in that order."""
        indices = list(indices)
        return Examples(*(tuple(column[i] for i in indices) if column else () for column in (self.ids, self.texts, self.labels)))


@dataclasses.dataclass(frozen=True)
class Raw:
    """Splits as read from a source; `dev` may be missing.

    `origin(split, row)` names the place of a row for error messages; `unread` holds the names of other files in the folder."""

    splits: dict[str, Examples]
    origin: Callable[[str, int], str]
    source: str
    unread: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Data of a run: `splits` has exactly train, dev and test; `task` is fitted to the labels of train.

    `fingerprint` identifies `splits`; `raw_fingerprint` identifies the splits as read, before the dev cut, limits and augmentation.
    `notes` are lines about the data for the user.
    """

    splits: dict[str, Examples]
    task: Task
    source: str
    fingerprint: str
    raw_fingerprint: str
    notes: tuple[str, ...] = ()


def rows(split: str, texts: Sequence[tuple[str, ...]], labels: Sequence[Label]) -> Examples:
    """Return examples whose ids are "train-0", "train-1" and so on, by row number."""
    return Examples(tuple(f"{split}-{i}" for i in range(len(texts))), tuple(texts), tuple(labels))


def fingerprint(splits: Mapping[str, Examples], task: Task) -> str:
    """Return the sha256 (hex) of what the task has learnt from the labels, and of the ids, texts and labels of every split, in order."""
    learnt = {name: value if isinstance(value, list) else [value] for name, value in task.learnt.items()}
    digest = hashlib.sha256(json.dumps([x for name, values in learnt.items() for x in (name, *values)]).encode())
    for name in filter(splits.__contains__, SPLITS):
        examples = splits[name]
        digest.update(f"\n{json.dumps([name, len(examples)])}".encode())
        for row in zip(examples.ids, examples.texts, examples.labels, strict=True):
            digest.update(f"\n{json.dumps(row)}".encode())
    return digest.hexdigest()
