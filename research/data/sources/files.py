"""Reading of examples from the user's files: tables (.tsv), JSON lines (.jsonl), CoNLL columns (.conll) and plain lines (.txt), each
also gzipped.

Lines end only at LF (or CR LF) and fields at TAB, without quoting, because texts may contain quotes and characters such as U+0085 that
other readers treat as line breaks.
"""

import contextlib
import functools
import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from research import storage
from research.data.examples import SPLITS, Examples, Raw, rows
from research.data.sources import conll
from research.errors import InputError, nearest
from research.tasks.base import WORD, Label, Task

TABLES = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
TAGGED = (".conll", ".conll.gz", ".txt", ".txt.gz", ".jsonl", ".jsonl.gz")  # files of tagged words; .txt has CoNLL columns too
NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""File names allowed for each split, without the ending."""


def read_folder(task: Task, path: str) -> Raw:
    """Return the splits in a folder: train, test and, if there is one, dev, under any of the names in `NAMES`.

    Raise InputError naming the file and the line."""
    folder = Path(path)
    if not path or not folder.is_dir():
        raise InputError(f"data.path is {path!r}, not a folder; give one with train and test files by --config.data.path=FOLDER")
    endings = TAGGED if task.outputs_per == WORD else TABLES
    files = {split: file for split in SPLITS if (file := _file(folder, split, endings))}
    splits = {split: _split(split, file, task) for split, file in files.items()}
    unread = sorted(file.name for file in folder.iterdir() if file.is_file() and file not in files.values())
    visible = tuple(name for name in unread if not name.startswith("."))
    return Raw(splits, lambda split, row: _place(files[split], row, task), f"files:{folder.resolve()}", visible)


def check_text(text: object, place: str) -> None:
    """Raise InputError, naming the place, if `text` is not a string, is empty, or cannot be encoded in UTF-8."""
    if not isinstance(text, str):
        raise InputError(f"{place}: the text is {_shown(text)}, not a string")
    if not text.strip():
        raise InputError(f"{place}: the text is empty")
    check_unicode(text, place, "text")


def check_unicode(text: str, place: str, what: str) -> None:
    """Raise InputError, naming `what` it is and the place, if `text` cannot be encoded in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: the {what} has half of a surrogate pair at character {error.start}") from None


def _shown(value: object) -> str:
    """Return a JSON value in at most 40 characters, or the type of a list or object."""
    return {list: "a list", dict: "an object"}.get(type(value)) or json.dumps(value)[:40]


def _file(folder: Path, split: str, endings: Sequence[str]) -> Path | None:
    """Return the file of a split, None for a missing dev split. Raise InputError for another missing split, and for several files."""
    matches = [file for name in NAMES[split] for ending in endings if (file := folder / f"{name}{ending}").is_file()]
    if len(matches) > 1:
        raise InputError(f"{folder}: several files for the {split} split: {' and '.join(file.name for file in matches)}; keep one")
    if not matches and split != "dev":
        names = sorted(file.name for file in folder.iterdir())
        listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        raise InputError(f"{folder}: no {split} split ({', '.join(split + ending for ending in endings)}); files: {listed or 'none'}")
    return matches[0] if matches else None


def _split(split: str, file: Path, task: Task) -> Examples:
    ending = kind(file.name)
    parser = conll.parse if ending == ".txt" else PARSERS[ending]
    table = list(parser(lines(str(file), file), str(file), (*task.texts, task.label)))
    if task.outputs_per == WORD:
        table = [conll.joined(fields, *task.texts, task.label, _place(file, row, task)) for row, fields in enumerate(table)]
    texts = [tuple(fields[text] for text in task.texts) for fields in table]
    return rows(split, texts, [read_label(fields[task.label], _place(file, row, task)) for row, fields in enumerate(table)])


def read_label(label: object, place: str) -> Label:
    """Return a label as text, unchanged. Raise InputError, naming the place, if it is neither a string nor an integer.

    A tuple, the labels of the words of a text, is returned as it is."""
    if isinstance(label, tuple):
        return label
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise InputError(f"{place}: the label is {_shown(label)}, not a string")
    check_unicode(str(label), place, "label")
    return str(label)


def _place(file: Path, row: int, task: Task) -> str:
    if task.outputs_per == WORD and kind(file.name) != ".jsonl":
        return f"{file}:{_sentence_lines(file, file.stat().st_mtime_ns)[row]}"
    return f"{file}:{row + FIRST_LINE[kind(file.name)]}"


@functools.lru_cache(maxsize=len(SPLITS))
def _sentence_lines(file: Path, changed: int) -> list[int]:
    """Return the number of the first line of each sentence of a file of CoNLL columns; `changed` is when the file was modified."""
    return [number for number, _ in conll.sentences(lines(str(file), file), str(file))]


def kind(name: str) -> str:
    """Return the ending of a file name, ignoring `.gz`."""
    return Path(name.removesuffix(".gz")).suffix


def lines(name: str, file: Path | None) -> Iterator[str]:
    """Yield the lines of a file (None is stdin) one by one, decompressed and decoded. The last line may lack its LF.

    Raise InputError, naming the line, for bytes that are not UTF-8, and for a file without text or with damaged compression.
    """
    blank: list[str] | None = []  # blank lines at the beginning; None after the first line with text
    try:
        with contextlib.ExitStack() as stack:
            stream = stack.enter_context(file.open("rb")) if file else sys.stdin.buffer
            if name.endswith(".gz"):
                stream = stack.enter_context(gzip.open(stream))
            for number, data in enumerate(stream, start=1):
                line = _decoded(data, f"{name}:{number}").removeprefix("\ufeff" if number == 1 else "")
                line = line.removesuffix("\n").removesuffix("\r")
                if blank is not None:
                    blank.append(line)
                    if not line.strip():
                        continue
                    yield from blank
                    blank = None
                else:
                    yield line
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: not a complete gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    if blank is not None:
        raise InputError(f"{name}: the file is empty")


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8") from None


def _parse_tsv(lines: Iterator[str], name: str, needed: Sequence[str]) -> Iterator[dict[str, str]]:
    header = next(lines).split("\t")
    for column in needed:
        if header.count(column) != 1:
            raise InputError(f"{name}:1: {header.count(column)} columns are called {column!r}, not one; {nearest(column, header)}")
    number = 1
    for number, line in enumerate(lines, start=2):
        fields = line.split("\t")
        if len(fields) != len(header):
            raise InputError(f"{name}:{number}: fields: {len(fields)}, where the header has {len(header)} ({', '.join(header)})")
        yield dict(zip(header, fields, strict=True))
    if number == 1:
        raise InputError(f"{name}: empty, only a header")


def _parse_jsonl(lines: Iterator[str], name: str, needed: Sequence[str]) -> Iterator[dict]:
    for number, line in enumerate(lines, start=1):
        fields = storage.parse_json(line, f"{name}:{number}")
        if not isinstance(fields, dict):
            raise InputError(f"{name}:{number}: not a JSON object; give one with {', '.join(needed)}")
        for field in needed:
            if field not in fields:
                raise InputError(f"{name}:{number}: no field {field!r}; {nearest(field, fields)}")
        yield fields


PARSERS = {".tsv": _parse_tsv, ".jsonl": _parse_jsonl, ".conll": conll.parse}
FIRST_LINE = {".tsv": 2, ".jsonl": 1, ".txt": 1, ".conll": 1}
"""Line number of row 0. Row 0 of .conll may stand further below."""
