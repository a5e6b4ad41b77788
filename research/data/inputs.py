"""Reading of inputs for a trained model, one example at a time."""

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from research.data.examples import Examples
from research.data.sources import conll, files
from research.errors import InputError, nearest
from research.tasks.base import WORD, Label, Task


class Input(NamedTuple):
    """One example of an input; `label` is None if the input has no labels."""

    id: str
    texts: tuple[str, ...]
    label: Label | None


def read_inputs(path: str, task: Task) -> Examples:
    """Return all examples that `stream_inputs` yields; `labels` is () if the input has no labels."""
    return collected(stream_inputs(path, task))


def collected(rows: Iterable[Input]) -> Examples:
    """Return the rows of an input as `Examples`."""
    ids, texts, labels = zip(*rows, strict=True)
    return Examples(ids, texts, labels if labels[0] is not None else ())


def stream_inputs(path: str, task: Task) -> Iterator[Input]:
    """Yield the examples of a file, or of stdin ("-").

    A `.txt` file has one text per line, `.conll` one word and perhaps its tag (for tasks that tag words). `.tsv` (with a header) and
    `.jsonl` have the task's text fields and optionally `id` and the label. On stdin the format is `.jsonl` or `.tsv` if the first line is a
    JSON object or a TAB-separated header, else one text per line. The default id is the row number, from 0. Labels are not checked against
    the task. Raise InputError naming the file and the line.
    """
    name = "stdin" if path == "-" else path
    kind = _kind(path)
    lines = files.lines(name, None if path == "-" else Path(path))
    first = next(lines)
    kind, lines = kind or _sniff(first, task), itertools.chain([first], lines)
    if kind == ".conll" and task.outputs_per != WORD:
        raise InputError(f"{name}: .conll has one word in a line, and task {task.name!r} does not tag words; give .txt, .tsv or .jsonl")
    if kind == ".txt" and len(task.texts) != 1:
        raise InputError(f"{name}: a line holds one text, and task {task.name!r} takes {' and '.join(task.texts)}; give .tsv or .jsonl")
    table = ({task.texts[0]: line} for line in lines) if kind == ".txt" else files.PARSERS[kind](lines, name, task.texts)
    return _checked(table, name, files.FIRST_LINE[kind], task)


def _checked(table: Iterable[dict], name: str, first: int, task: Task) -> Iterator[Input]:
    """Check the rows of an input and yield them; `first` is the line number of row 0."""
    seen: dict[int, int] | None = None  # hash of an id -> its row; filled from the first row with an `id` field on
    labelled = None
    for row, fields in enumerate(table):
        place, key = f"{name}:{row + first}", str(fields.get("id", row))
        if task.outputs_per == WORD:
            fields = conll.joined(fields, *task.texts, task.label, place)
        for text in task.texts:
            files.check_text(fields[text], place)
        files.check_unicode(key, place, "id")
        if seen is None and "id" in fields:
            seen = {hash(str(before)): before for before in range(row)}
        if seen is not None and (before := seen.setdefault(hash(key), row)) != row:
            raise InputError(f"{place}: id {key!r} is also the id of {name}:{before + first}; give each row another id")
        labelled = task.label in fields if labelled is None else labelled
        if (task.label in fields) != labelled:
            raise InputError(f"{place}: field {task.label!r} is in some rows and not in others; give it to all or to none")
        label = task.normalized(files.read_label(fields[task.label], place)) if labelled else None
        yield Input(key, tuple(fields[text] for text in task.texts), label)


def _kind(path: str) -> str:
    """Return the format of an input by the ending of the file name; "" for stdin."""
    if path == "-":
        return ""
    if not Path(path).is_file():
        raise InputError(f"--input={path}: no such file; give a .txt, .tsv or .jsonl file, or - for stdin")
    if (kind := files.kind(path)) not in files.FIRST_LINE:
        raise InputError(f"--input={path}: {kind or 'no ending'!r} is not a format; {nearest(kind, files.FIRST_LINE)}")
    return kind


def _sniff(line: str, task: Task) -> str:
    """Return the format of an input by its first line."""
    if line.startswith("{"):
        return ".jsonl"
    return ".tsv" if "\t" in line and set(task.texts) <= set(line.split("\t")) else ".txt"
