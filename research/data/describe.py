"""The lines in which a run says what its data are."""

import functools
import operator
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from research.data.encode import Tokens
from research.data.examples import SPLITS, Examples, Raw
from research.data.labels import lookalikes

NAMED = 24  # classes, or files, that are named one by one


def notes(raw: Raw, splits: Mapping[str, Examples], labels: Sequence[str], blanks: Counter) -> tuple[str, ...]:
    """Return the lines on a data set: its source and sizes, its classes with their counts, and what in it is suspicious.

    `raw` is the data as they were read, `splits` as they are used; `blanks` counts for each class the labels that had blanks around them.
    """
    cut = "" if "dev" in raw.splits else ", dev is cut from train"
    lines = [f"data: {raw.source}: {', '.join(f'{split} {len(splits[split]):,}' for split in SPLITS)} examples{cut}"]
    lines.append(_classes(splits, labels))
    if raw.unread:
        lines.append(f"not read: {_listed(raw.unread)}")
    if blanks:
        found = ", ".join(f"{label!r} {count:,}" for label, count in blanks.most_common(NAMED))
        lines.append(f"blanks around labels were taken off: {blanks.total():,} ({found})")
    for group in lookalikes(labels):
        names = " and ".join(ascii(label) for label in group)
        lines.append(f"warning: the classes {names} differ only in case, Unicode form or invisible characters")
    return tuple(lines)


class Lengths(NamedTuple):
    """How many texts are cut, of how many, and how many tokens the longest has."""

    cut: int
    texts: int
    longest: int

    @classmethod
    def of(cls, tokens: Tokens) -> "Lengths":
        """Return those of encoded texts."""
        return cls(int((tokens.uncut > tokens.lengths).sum()), len(tokens), int(tokens.uncut.max()))

    def __or__(self, other: "Lengths") -> "Lengths":
        """Return those of both."""
        return Lengths(self.cut + other.cut, self.texts + other.texts, max(self.longest, other.longest))


def truncation(lengths: Mapping[str, Lengths], max_length: int) -> str:
    """Return the line that says how many texts of each split are cut, and how long the longest is."""
    cut, texts, longest = functools.reduce(operator.or_, lengths.values())
    if not cut:
        return f"no text is cut: the longest has {longest:,} tokens, max_length is {max_length:,}"
    each = ", ".join(f"{split} {one.cut / one.texts:.1%}" for split, one in lengths.items())
    return f"cut to max_length={max_length:,} tokens: {cut / texts:.1%} of the texts ({each}); the longest has {longest:,} tokens"


def _classes(splits: Mapping[str, Examples], labels: Sequence[str]) -> str:
    counts = {split: Counter(splits[split].labels) for split in SPLITS}
    named = [f"{label} {'/'.join(f'{counts[split][label]:,}' for split in SPLITS)}" for label in labels]
    return f"{len(labels)} classes (examples in {'/'.join(SPLITS)}): {_listed(named)}"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
