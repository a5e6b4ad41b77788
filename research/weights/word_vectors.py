"""Word vectors in the text format of GloVe and of word2vec: a word and its numbers in a row, perhaps a row with counts before all."""

import gzip
import zlib
from collections.abc import Container, Iterator
from pathlib import Path

import numpy as np

from research.errors import InputError


def read(path: Path, wanted: Container[str], size: int, field: str) -> dict[str, np.ndarray]:
    """The vectors, float32 [size], of those words that are `wanted`; the first row of a word counts. The file may be gzipped.

    Raises InputError, with the row's number, where a row is not a word and `size` finite numbers; `field` is the config's name for
    that size. The numbers of other words are counted, but not read.
    """
    found: dict[str, np.ndarray] = {}
    for number, line in _lines(path):
        if number == 1 and _is_header(line):
            continue
        word, *numbers = line.rsplit(" ", size)
        _, space, end = word.rpartition(" ")
        # A word may have spaces in it (GloVe's 840B has some), but no number at its end: then there is one too many.
        if len(numbers) < size or (space and _is_number(end)):
            raise InputError(f"{path} row {number}: {line.count(' ')} numbers after the word, but {field}={size}")
        if word in wanted and word not in found:
            found[word] = _vector(numbers, f"{path} row {number}: {word!r}")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Rows and their numbers, from 1, without what ends them."""
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
    if wrong := next((text for text in numbers if not _is_number(text)), None):
        raise InputError(f"{place} has {wrong!r} where a number should be")
    vector = np.array(numbers, np.float32)
    if not np.isfinite(vector).all():
        raise InputError(f"{place} has a number that is not finite")
    return vector
