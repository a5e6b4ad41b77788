"""Reads examples from files of the user's: tables (.tsv), JSON lines (.jsonl) and plain lines (.txt), each also gzipped.

Lines end at LF alone and fields at TAB, without quoting: texts hold quotes, and characters such as U+0085 that other readers break
lines at.
"""

import gzip
import json
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from research import whole
from research.data.examples import SPLITS, Examples, Raw, rows
from research.errors import InputError, nearest
from research.tasks.task import Task

TABLES = (".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")
NAMES = {"train": ("train",), "dev": ("dev", "validation", "valid", "val"), "test": ("test",)}
"""What the file of each split may be called, without its ending."""


def read_folder(task: Task, path: str) -> Raw:
    """Return the splits in a folder: train and test, and dev where it has one, under any of the names in `NAMES`.

    Raises InputError naming the file and the line."""
    folder = Path(path)
    if not path or not folder.is_dir():
        raise InputError(f"data.path is {path!r}, not a folder; give one with train and test files by --config.data.path=FOLDER")
    files = {split: file for split in SPLITS if (file := _file(folder, split))}
    splits = {split: _split(split, file, task) for split, file in files.items()}
    unread = sorted(file.name for file in folder.iterdir() if file.is_file() and file not in files.values())
    visible = tuple(name for name in unread if not name.startswith("."))
    return Raw(splits, lambda split, row: _place(files[split], row), f"files:{folder.resolve()}", visible)


def read_inputs(path: str, task: Task) -> Examples:
    """The examples to predict, from a file or from stdin ("-").

    A `.txt` has one text a line; `.tsv` (with a header) and `.jsonl` have the task's text fields, and `id` and the label where they like.
    On stdin a JSON object or a TAB-separated header in the first line says which it is; anything else is one text a line. Without an
    `id` the row number, from 0, is it. `labels` are as they stand in the input, () without any. Raises InputError naming the file and
    the line.
    """
    name = "stdin" if path == "-" else path
    kind = _input_kind(path)
    lines = _lines(name, None if path == "-" else Path(path))
    kind = kind or _sniff(lines[0], task)
    if kind != ".txt":
        return _inputs(PARSERS[kind](lines, name, task.texts), name, FIRST_LINE[kind], task)
    if len(task.texts) != 1:
        raise InputError(f"{name}: a line holds one text, and task {task.name!r} takes {' and '.join(task.texts)}; give .tsv or .jsonl")
    return _inputs([{task.texts[0]: line} for line in lines], name, FIRST_LINE[kind], task)


def _inputs(table: list[dict], name: str, first: int, task: Task) -> Examples:
    """Checks and collects the rows of an input; `first` is the number of the line of row 0."""
    seen: dict[str, str] = {}
    labelled = [task.label in fields for fields in table]
    labels = []
    for row, fields in enumerate(table):
        place, key = f"{name}:{row + first}", str(fields.get("id", row))
        for text in task.texts:
            check_text(fields[text], place)
        _check_unicode(key, place, "id")
        if key in seen:
            raise InputError(f"{place}: id {key!r} is that of {seen[key]} too; give each row its own")
        seen[key] = place
        if labelled[row] != labelled[0]:
            raise InputError(f"{place}: field {task.label!r} is in some rows and not in others; give it to all or to none")
        labels += [_label(fields[task.label], place).strip()] if labelled[row] else []
    return Examples(tuple(seen), tuple(tuple(fields[text] for text in task.texts) for fields in table), tuple(labels))


def check_text(text: object, place: str) -> None:
    """Raise InputError, naming the place, for what is not text, is empty, or has no UTF-8 form."""
    if not isinstance(text, str):
        raise InputError(f"{place}: the text is {_shown(text)}, not a string")
    if not text.strip():
        raise InputError(f"{place}: the text is empty")
    _check_unicode(text, place, "text")


def _check_unicode(text: str, place: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: the {what} has half of a surrogate pair at character {error.start}") from None


def _shown(value: object) -> str:
    """Return a JSON value in a few characters; a nested one is only named."""
    return {list: "a list", dict: "an object"}.get(type(value)) or json.dumps(value)[:40]


def _file(folder: Path, split: str) -> Path | None:
    found = [file for name in NAMES[split] for ending in TABLES if (file := folder / f"{name}{ending}").is_file()]
    if len(found) > 1:
        raise InputError(f"{folder}: the {split} split is there twice, as {' and '.join(file.name for file in found)}; keep one")
    if not found and split != "dev":
        there = sorted(file.name for file in folder.iterdir())
        listed = ", ".join(there[:12]) + (f" and {len(there) - 12} more" if len(there) > 12 else "")
        raise InputError(f"{folder}: no {split} split ({', '.join(split + ending for ending in TABLES)}); there: {listed or 'nothing'}")
    return found[0] if found else None


def _split(split: str, file: Path, task: Task) -> Examples:
    table = PARSERS[_kind(file.name)](_lines(str(file), file), str(file), (*task.texts, task.label))
    texts = [tuple(fields[text] for text in task.texts) for fields in table]
    return rows(split, texts, [_label(fields[task.label], _place(file, row)) for row, fields in enumerate(table)])


def _label(label: object, place: str) -> str:
    if isinstance(label, bool) or not isinstance(label, str | int):
        raise InputError(f"{place}: the label is {_shown(label)}, not a string")
    _check_unicode(str(label), place, "label")
    return str(label)


def _place(file: Path, row: int) -> str:
    return f"{file}:{row + FIRST_LINE[_kind(file.name)]}"


def _kind(name: str) -> str:
    """The ending of a file's name, without `.gz`."""
    return Path(name.removesuffix(".gz")).suffix


def _input_kind(path: str) -> str:
    """The format that the name of an input says; "" for stdin."""
    if path == "-":
        return ""
    if not Path(path).is_file():
        raise InputError(f"--input={path}: no such file; give a .txt, .tsv or .jsonl file, or - for stdin")
    if _kind(path) not in FIRST_LINE:
        raise InputError(f"--input={path}: {_kind(path) or 'no ending'!r} is not a format; {nearest(_kind(path), FIRST_LINE)}")
    return _kind(path)


def _sniff(line: str, task: Task) -> str:
    if line.startswith("{"):
        return ".jsonl"
    return ".tsv" if "\t" in line and set(task.texts) <= set(line.split("\t")) else ".txt"


def _lines(name: str, file: Path | None) -> list[str]:
    """The lines of a file (None is stdin), decompressed and decoded; the last may lack its end."""
    try:
        data = file.read_bytes() if file else sys.stdin.buffer.read()
        if name.endswith(".gz"):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{name}: not a whole gzip file ({error})") from None
    except OSError as error:
        raise InputError(f"{name}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{name}:{line}: byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8") from None
    if not text.strip():
        raise InputError(f"{name}: the file is empty")
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def _parse_tsv(lines: list[str], name: str, needed: Sequence[str]) -> list[dict[str, str]]:
    header = lines[0].split("\t")
    for column in needed:
        if header.count(column) != 1:
            raise InputError(f"{name}:1: {header.count(column)} columns are called {column!r}, not one; {nearest(column, header)}")
    if len(lines) == 1:
        raise InputError(f"{name}: empty, there is only a header")
    table = []
    for number, line in enumerate(lines[1:], start=2):
        fields = line.split("\t")
        if len(fields) != len(header):
            raise InputError(f"{name}:{number}: fields: {len(fields)}, where the header has {len(header)} ({', '.join(header)})")
        table.append(dict(zip(header, fields, strict=True)))
    return table


def _parse_jsonl(lines: list[str], name: str, needed: Sequence[str]) -> list[dict]:
    table = []
    for number, line in enumerate(lines, start=1):
        fields = whole.parse_json(line, f"{name}:{number}")
        if not isinstance(fields, dict):
            raise InputError(f"{name}:{number}: not a JSON object; give one with {', '.join(needed)}")
        for field in needed:
            if field not in fields:
                raise InputError(f"{name}:{number}: no field {field!r}; {nearest(field, fields)}")
        table.append(fields)
    return table


PARSERS = {".tsv": _parse_tsv, ".jsonl": _parse_jsonl}
FIRST_LINE = {".tsv": 2, ".jsonl": 1, ".txt": 1}
"""The number of the line that row 0 stands on."""
