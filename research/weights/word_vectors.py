"""Reading of word vectors in the text format of GloVe and word2vec: a word and its numbers per row, perhaps after a row of counts."""

import gzip
import zlib
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from research.errors import InputError


def read(path: Path, wanted: Container[str], size: int, field: str) -> dict[str, np.ndarray]:
    """Read the vectors, float32 [size], of the words that are in `wanted`; the first row of a word counts. The file may be gzipped.

    Raises InputError, with the row's number, where a row is not a word and `size` finite numbers; for other words, the numbers are
    counted but not parsed. `field` is the config field of `size`, for messages.
    """
    vectors: dict[str, np.ndarray] = {}
    for number, line in _lines(path):
        if number == 1 and _is_header(line):
            continue
        word, *numbers = line.rsplit(" ", size)
        _, space, end = word.rpartition(" ")
        # A word may contain spaces (as in GloVe 840B), but may not end in a number: then the row has one number too many.
        if len(numbers) < size or (space and _is_number(end)):
            raise InputError(f"{path} row {number}: {line.count(' ')} numbers after the word, but {field}={size}")
        if word in wanted and word not in vectors:
            vectors[word] = _vector(numbers, f"{path} row {number}: {word!r}")
    return vectors


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (row number from 1, row without its line ending). Raises InputError where the file is damaged or not UTF-8."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    number = 0
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode().rstrip(" \r\n")
    except UnicodeDecodeError:
        raise InputError(f"{path} row {number}: not UTF-8; word vectors are read in the text format") from None
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} after row {number}: not a whole gzip file ({error})") from None


def _is_header(line: str) -> bool:
    return len(line.split(" ")) == 2 and all(part.isdecimal() for part in line.split(" "))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _vector(numbers: list[str], place: str) -> np.ndarray:
    if invalid := next((text for text in numbers if not _is_number(text)), None):
        raise InputError(f"{place} has {invalid!r} where a number should be")
    vector = np.array(numbers, np.float32)
    if not np.isfinite(vector).all():
        raise InputError(f"{place} has a number that is not finite")
    return vector
