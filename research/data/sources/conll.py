"""Files of tagged words: CoNLL columns (.conll, .txt) and JSON lines with a list of words and a list of tags."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from research.errors import InputError

DOCUMENT = "-DOCSTART-"  # first column of lines between documents


def sentences(lines: Iterable[str], name: str) -> Iterator[tuple[int, list[list[str]]]]:
    """Yield the number of the first line and the rows of columns of each sentence. Columns are separated by blanks or tabs, sentences by
    blank lines. Raise InputError, naming the line, for a line that has not as many columns as the first."""
    first, rows, width = 0, [], 0
    for number, line in enumerate(lines, start=1):
        columns = re.findall(r"[^ \t]+", line)
        if columns and columns[0] != DOCUMENT:
            width = width or len(columns)
            if len(columns) != width:
                raise InputError(f"{name}:{number}: columns: {len(columns)}, where the first line has {width}; {line[:40]!r}")
            first = first if rows else number
            rows.append(columns)
        elif rows:
            yield first, rows
            rows = []
    if rows:
        yield first, rows


def parse(lines: Iterator[str], name: str, needed: Sequence[str]) -> Iterator[dict[str, list[str]]]:
    """Yield the words and, where there is more than one column, the tags (the last column) of each sentence.

    The fields are called `tokens` and `tags`; `needed` are those that are needed. Raise InputError as `sentences` does, for a
    file of a single column where tags are needed, and for one without sentences."""
    number = 0
    for number, rows in sentences(lines, name):
        if len(rows[0]) == 1 and "tags" in needed:
            raise InputError(f"{name}:{number}: one column; give the word in the first and its tag in the last")
        yield {"tokens": [row[0] for row in rows]} | ({"tags": [row[-1] for row in rows]} if len(rows[0]) > 1 else {})
    if not number:
        raise InputError(f"{name}: no sentences")


def joined(fields: dict[str, Any], text: str, label: str, place: str) -> dict[str, Any]:
    """Return the fields of an example with the list of words as one text, joined by blanks, and the list of tags as a tuple.

    A text is left as it is. Raise InputError for words or tags that are not lists of strings, for a word that is empty or has a blank, and
    where their numbers differ."""
    words = fields[text]
    if isinstance(words, str):
        words = re.findall(r"[^ \t]+", words)
    else:
        check_strings(words, "words", place)
        if odd := [word for word in words if not re.fullmatch(r"[^ \t]+", word)]:
            raise InputError(f"{place}: the word {odd[0]!r} is empty or has a blank in it; words are what stands between blanks")
        fields = fields | {text: " ".join(words)}
    if label in fields:
        check_strings(fields[label], "tags", place)
        if len(words) != len(fields[label]):
            raise InputError(f"{place}: {len(words)} words but {len(fields[label])} tags; give one tag for each word")
        fields = fields | {label: tuple(fields[label])}
    return fields


def check_strings(values: object, what: str, place: str) -> None:
    """Raise InputError, naming `what` they are and the place, unless `values` is a list of strings."""
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{place}: the {what} are not a list of strings")
