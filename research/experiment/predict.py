"""Predictions of a trained model for a stream of texts, and the files that they are written to."""

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
from research.data import pipeline
from research.data.describe import Lengths, truncation
from research.data.inputs import Input, collected
from research.errors import InputError
from research.experiment.results import prediction_rows
from research.parallel import layouts
from research.train import trainers
from research.train.evaluate import evaluate

CHUNK = 1024  # examples read, tokenised and batched at a time, so that memory use does not grow with the input
ENDINGS = (".jsonl", ".csv", ".tsv")
Row = dict[str, Any]
QUIET = Console(quiet=True)


def stream(model: AdaptedModel, layout: layouts.Layout, rows: Iterable[Input], console: Console = QUIET) -> Iterator[Row]:
    """Yield one dict for each of `rows`, in order: id, texts, label (if there is one) and prediction.

    At the end, print to `console` how many texts were truncated. Batches of later chunks reuse the shapes of earlier ones where they fit,
    so that few programs are compiled.
    """
    program, params = trainers.eval_program(model, layout), [layout.replicate(tree) for tree in (model.trainable, model.frozen)]
    rows, shapes, lengths = iter(rows), set(), Lengths(0, 0, 0)
    while chunk := list(itertools.islice(rows, CHUNK)):
        examples = collected(chunk)
        batches = pipeline.batches(model, dataclasses.replace(examples, labels=()), layout.multiple, keep=False)
        batches.shapes = [*sorted(shapes, key=lambda shape: shape.rows * shape.length), *batches.shapes]
        _, outputs = evaluate(program, *params, batches, layout, model.task.outputs_per)
        shapes.update(batches.shapes)
        lengths |= Lengths.of(batches.tokens)
        yield from prediction_rows(examples, model.task.decode(outputs, examples.texts))
    if lengths.cut:
        console.print(truncation({"input": lengths}, model.config.max_length))


def check_output(path: str | None) -> None:
    """Raise InputError for a file name that does not end in one of `ENDINGS`, or whose folder does not exist."""
    if path is None:
        return
    if (ending := Path(path).suffix) not in ENDINGS:
        raise InputError(f"--output={path}: {ending or 'no ending'!r} is not a format; give a name that ends in {', '.join(ENDINGS)}")
    check_folder(path)


def check_folder(path: str) -> None:
    """Raise InputError if the folder of the output file does not exist, or if there is a folder of that name."""
    if not Path(path).absolute().parent.is_dir() or Path(path).is_dir():
        raise InputError(f"--output={path}: {'that is a folder' if Path(path).is_dir() else 'its folder is not there'}")


def write(rows: Iterable[Row], path: str | None, total: int | None, console: Console) -> None:
    """Write each row as soon as it is computed: to the file `path`, in the format of its ending, or as JSON lines to standard output.

    Rows are written to `path`.part, which is renamed to `path` at the end. A terminal shows a progress bar, with `total` if it is known.
    """
    columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    show_bar = console.is_terminal and (path is not None or not sys.stdout.isatty())
    with Progress(*columns, console=console, disable=not show_bar, transient=True) as progress, _opened(path) as write_row:
        for row in progress.track(rows, total=total):
            write_row(row)


@contextlib.contextmanager
def _opened(path: str | None) -> Iterator[Callable[[Row], None]]:
    """Yield a function that writes a row as one complete line. `check_output` has checked `path`."""
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
    """Return a function that writes a row of a table, and the header before the first row. Each class has a column for its probability."""
    has_header = False

    def write_row(row: Row) -> None:
        nonlocal has_header
        cells = {name: value for name, value in row.items() if name != "probabilities"}
        cells |= {f"probability_{label}": value for label, value in row.get("probabilities", {}).items()}
        if not has_header:
            write_cells(list(cells))
            has_header = True
        write_cells(list(cells.values()))

    return write_row


def _tabbed(cells: list[Any]) -> str:
    """Return a line of a .tsv file. A .tsv has no quoting, so tabs and line ends inside a text become spaces."""
    return "\t".join(re.sub(r"[\t\r\n]", " ", str(cell)) for cell in cells) + "\n"
