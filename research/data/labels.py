"""Names of classes: their order, the blanks around them, and names that were perhaps meant to be one."""

import dataclasses
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from research.data.examples import Examples

NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]+)?|\.[0-9]+)")


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the distinct labels in natural order: 2 before 10, -1 before 0, LABEL_2 before LABEL_10."""
    labels = set(labels)
    if all(NUMBER.fullmatch(label) for label in labels):
        return tuple(sorted(labels, key=lambda label: (Decimal(label), label)))
    return tuple(sorted(labels, key=lambda label: (_pieces(label), label)))


def _pieces(label: str) -> list:
    """Return text and numbers in turn; a number counts by its value, however long it is."""
    pieces = re.split("([0-9]+)", label)
    return [(len(piece.lstrip("0")), piece.lstrip("0")) if place % 2 else piece for place, piece in enumerate(pieces)]


def stripped(splits: Mapping[str, Examples]) -> tuple[dict[str, Examples], Counter]:
    """Return the splits without blanks around their labels, and how many labels of each class had some."""
    found, counts = {}, Counter()
    for name, examples in splits.items():
        labels = tuple(label.strip() for label in examples.labels)
        counts.update(label for label, before in zip(labels, examples.labels, strict=True) if label != before)
        found[name] = dataclasses.replace(examples, labels=labels)
    return found, counts


def lookalikes(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of labels that differ only in case, Unicode form, invisible characters or the width of a blank."""
    groups = defaultdict(list)
    for label in labels:
        groups[_skeleton(label)].append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _skeleton(label: str) -> str:
    label = " ".join(unicodedata.normalize("NFKC", label).split())
    return unicodedata.normalize("NFKC", "".join(c for c in label if not _invisible(c)).casefold()).strip()


def _invisible(c: str) -> bool:
    return unicodedata.category(c).startswith("C") or "\ufe00" <= c <= "\ufe0f"  # controls and formats; variation selectors
