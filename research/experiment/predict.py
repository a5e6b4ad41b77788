"""Predictions of a trained model for texts as they come, and where they are written."""

import contextlib
import csv
import dataclasses
import itertools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from research.adapt.adapted_model import AdaptedModel
from research.data.describe import Lengths, truncation
from research.data.inputs import Input, collected
from research.errors import InputError
from research.experiment.results import prediction_rows
from research.parallel import layouts
from research.train import loop
from research.train.evaluate import evaluate

CHUNK = 1024  # examples that are read, tokenised and laid out together: memory does not grow with the input
ENDINGS = (".jsonl", ".csv", ".tsv")
Row = dict[str, Any]
QUIET = Console(quiet=True)


def stream(model: AdaptedModel, layout: layouts.Layout, rows: Iterable[Input], console: Console = QUIET) -> Iterator[Row]:
    """Yield one dict for each of `rows`, in order: id, texts, label where there is one, prediction, probabilities.

    Where texts had to be cut, the `console` is told at the end how many.
    Batches of later chunks take the shapes of earlier ones wherever they fit, so that few programs are compiled.
    """
    program, halves = loop.eval_program(model, layout), [layout.replicate(half) for half in (model.trainable, model.frozen)]
    rows, known, lengths = iter(rows), set(), Lengths(0, 0, 0)
    while chunk := list(itertools.islice(rows, CHUNK)):
        examples = collected(chunk)
        batches = model.batches(dataclasses.replace(examples, labels=()), layout, keep=False)
        batches.shapes = [*sorted(known, key=lambda shape: shape.rows * shape.length), *batches.shapes]
        _, logits = evaluate(program, *halves, batches, layout)
        known.update(batches.shapes)
        lengths |= Lengths.of(batches.tokens)
        yield from prediction_rows(examples, logits, model.kind.predictions, model.labels)
    if lengths.cut:
        console.print(truncation({"input": lengths}, model.config.max_length))


def check_output(path: str | None) -> None:
    """Raise InputError for a file whose ending is none of `ENDINGS`, or whose folder is not there."""
    if path is None:
        return
    if (ending := Path(path).suffix) not in ENDINGS:
        raise InputError(f"--output={path}: {ending or 'no ending'!r} is not a format; give a name that ends in {', '.join(ENDINGS)}")
    if not Path(path).absolute().parent.is_dir() or Path(path).is_dir():
        raise InputError(f"--output={path}: {'that is a folder' if Path(path).is_dir() else 'its folder is not there'}")


def write(rows: Iterable[Row], path: str | None, total: int | None, console: Console) -> None:
    """Write the rows as they come: to the file `path`, by its ending, or as JSON lines to standard output.

    The file is there when it is whole: until then its lines are in `path`.part. A terminal shows a bar, out of `total` where that is known.
    """
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    seen = console.is_terminal and (path is not None or not sys.stdout.isatty())
    with Progress(*columns, console=console, disable=not seen, transient=True) as progress, _opened(path) as put:
        for row in progress.track(rows, total=total):
            put(row)


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[Callable[[Row], None]]:
    """Give what writes a row as a whole line at once. `path` has been checked by `check_output`."""
    if path is None:
        yield lambda row: print(json.dumps(row, ensure_ascii=False), flush=True)
        return
    part = f"{path}.part"
    with open(part, "w", encoding="utf8", newline="", buffering=1) as file:
        write_cells = {".csv": csv.writer(file, lineterminator="\n").writerow, ".tsv": lambda cells: file.write(_tabbed(cells))}
        if Path(path).suffix == ".jsonl":
            yield lambda row: file.write(json.dumps(row, ensure_ascii=False) + "\n")
        else:
            yield _table(write_cells[Path(path).suffix])
    os.replace(part, path)


def _table(write_cells: Callable[[list[Any]], Any]) -> Callable[[Row], None]:
    """Return what writes rows as a table, whose header comes with the first: each probability is a column of its own."""
    headed = False

    def put(row: Row) -> None:
        nonlocal headed
        cells = {name: value for name, value in row.items() if name != "probabilities"}
        cells |= {f"probability_{label}": value for label, value in row["probabilities"].items()}
        if not headed:
            write_cells(list(cells))
            headed = True
        write_cells(list(cells.values()))

    return put


def _tabbed(cells: list[Any]) -> str:
    """Return a line of a .tsv, which has no quoting: tabs and line ends inside a text are blanks there."""
    return "\t".join(re.sub(r"[\t\r\n]", " ", str(cell)) for cell in cells) + "\n"
