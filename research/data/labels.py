"""Class names: order, surrounding blanks, and names that look alike."""

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
    """Return the sort key of a label: text and numbers in turn, where a number is compared by value, without a limit on its digits."""
    pieces = re.split("([0-9]+)", label)
    return [(len(piece.lstrip("0")), piece.lstrip("0")) if place % 2 else piece for place, piece in enumerate(pieces)]


def stripped(splits: Mapping[str, Examples]) -> tuple[dict[str, Examples], Counter]:
    """Return the splits with blanks around labels removed, and the number of such labels for each class."""
    result, counts = {}, Counter()
    for name, examples in splits.items():
        labels = tuple(label.strip() for label in examples.labels)
        counts.update(label for label, before in zip(labels, examples.labels, strict=True) if label != before)
        result[name] = dataclasses.replace(examples, labels=labels)
    return result, counts


def lookalikes(labels: Iterable[str]) -> list[tuple[str, ...]]:
    """Return the groups of labels that differ only in case, Unicode form, invisible characters or the width of a blank."""
    groups = defaultdict(list)
    for label in labels:
        groups[_skeleton(label)].append(label)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _skeleton(label: str) -> str:
    """Return a form of a label that is equal for labels that look alike."""
    label = " ".join(unicodedata.normalize("NFKC", label).split())
    return unicodedata.normalize("NFKC", "".join(c for c in label if not _invisible(c)).casefold()).strip()


def _invisible(c: str) -> bool:
    return unicodedata.category(c).startswith("C") or "\ufe00" <= c <= "\ufe0f"  # controls and formats; variation selectors
