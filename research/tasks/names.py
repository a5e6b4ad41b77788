"""Class names: their order, their counts, and names that look alike."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

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


def describe(classes: Sequence[str], labels: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line with the classes and their counts in each split of `labels`, and a warning for each group of names that look alike."""
    counts = {split: Counter(names) for split, names in labels.items()}
    shown = [f"{name} {'/'.join(f'{count[name]:,}' for count in counts.values())}" for name in classes]
    lines = [f"{len(classes)} classes (examples in {'/'.join(labels)}): {listed(shown)}"]
    for group in lookalikes(classes):
        names = " and ".join(ascii(name) for name in group)
        lines.append(f"warning: the classes {names} differ only in case, Unicode form or invisible characters")
    return lines


def listed(names: Sequence[str], most: int = 24) -> str:
    """Return the first `most` names, joined by commas, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


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
