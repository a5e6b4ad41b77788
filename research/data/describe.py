"""Lines that describe the data of a run to the user."""

import functools
import operator
from collections.abc import Mapping
from typing import NamedTuple

from research.data.encode import Tokens
from research.data.examples import SPLITS, Examples, Raw
from research.tasks.base import Label, Task
from research.tasks.names import listed


def notes(raw: Raw, splits: Mapping[str, Examples], task: Task, changes: Mapping[tuple[Label, Label], int]) -> tuple[str, ...]:
    """Return lines about a data set: source and sizes, labels, and warnings.

    `raw` is the data as read, `splits` the data as used; `changes` counts the labels that the task changed, as
    `Task.describe_changes` takes them.
    """
    cut = "" if "dev" in raw.splits else ", dev is cut from train"
    lines = [f"data: {raw.source}: {', '.join(f'{split} {len(splits[split]):,}' for split in SPLITS)} examples{cut}"]
    lines += task.describe({split: splits[split].labels for split in SPLITS})
    if raw.unread:
        lines.append(f"not read: {listed(raw.unread)}")
    return (*lines, *task.describe_changes(changes))


class Lengths(NamedTuple):
    """Number of truncated texts, number of texts, number of tokens of the longest text before truncation, and number of words without a
    token, where words are tagged."""

    cut: int
    texts: int
    longest: int
    words: int = 0

    @classmethod
    def of(cls, tokens: Tokens) -> "Lengths":
        """Return the lengths of encoded texts."""
        return cls(int((tokens.uncut > tokens.lengths).sum()), len(tokens), int(tokens.uncut.max()), tokens.words_without_tokens)

    def __or__(self, other: "Lengths") -> "Lengths":
        """Return the lengths of both sets of texts together."""
        return Lengths(self.cut + other.cut, self.texts + other.texts, max(self.longest, other.longest), self.words + other.words)


def truncation(lengths: Mapping[str, Lengths], max_length: int) -> str:
    """Return a line with the fraction of truncated texts in each split and the length of the longest text."""
    cut, texts, longest, words = functools.reduce(operator.or_, lengths.values())
    outside = f"; {words:,} words have no token left and are predicted as O" if words else ""
    if not cut:
        return f"no text is cut: the longest has {longest:,} tokens, max_length is {max_length:,}{outside}"
    by_split = ", ".join(f"{split} {one.cut / one.texts:.1%}" for split, one in lengths.items())
    return (
        f"cut to max_length={max_length:,} tokens: {cut / texts:.1%} of the texts ({by_split}); the longest has {longest:,} tokens{outside}"
    )
