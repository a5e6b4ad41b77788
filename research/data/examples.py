"""What data are once they are read: texts and label names, in splits, with an identity."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class Examples:
    """Examples in order. `ids` are stable and unique inside a split ("train-17" is row 17, from 0, of its source);
    `texts` holds (text,) or (text_a, text_b) for each; `labels` their names, () where nothing is labelled."""

    ids: tuple[str, ...]
    texts: tuple[tuple[str, ...], ...]
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Iterable[int]) -> "Examples":
        """The examples at `indices`, in that order."""
        indices = list(indices)
        return Examples(*(tuple(column[i] for i in indices) if column else () for column in (self.ids, self.texts, self.labels)))


@dataclasses.dataclass(frozen=True)
class Raw:
    """Splits as a source has them (`dev` may be missing), `origin(split, row)` for error messages, the name of the source, and the names
    of files beside the splits that were not read."""

    splits: dict[str, Examples]
    origin: Callable[[str, int], str]
    source: str
    unread: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Dataset:
    """`splits` has exactly train, dev and test; `labels` are the classes in order.

    `fingerprint` is of `splits`; `raw_fingerprint` is of the splits as they were read, before anything was drawn, cut or added.
    `notes` are lines about the reading that the user should see.
    """

    splits: dict[str, Examples]
    labels: tuple[str, ...]
    source: str
    fingerprint: str
    raw_fingerprint: str
    notes: tuple[str, ...] = ()


def rows(split: str, texts: Sequence[tuple[str, ...]], labels: Sequence[str]) -> Examples:
    """Examples called after their row number: "train-0", "train-1" and so on."""
    return Examples(tuple(f"{split}-{i}" for i in range(len(texts))), tuple(texts), tuple(labels))


def fingerprint(splits: Mapping[str, Examples], labels: Sequence[str]) -> str:
    """Return the sha256 (hex) of the label names and of every split's ids, texts and labels, in order: one JSON line for each example."""
    digest = hashlib.sha256(json.dumps(["labels", *labels]).encode())
    for name in filter(splits.__contains__, SPLITS):
        examples = splits[name]
        digest.update(f"\n{json.dumps([name, len(examples)])}".encode())
        for row in zip(examples.ids, examples.texts, examples.labels, strict=True):
            digest.update(f"\n{json.dumps(row)}".encode())
    return digest.hexdigest()
