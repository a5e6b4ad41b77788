"""Reading of word vectors: the supported formats, and errors that name the row."""

import gzip

import numpy as np
import pytest

from research.errors import InputError
from research.weights import word_vectors

GLOVE = "the 0.5 -1 2e-1\nfilm 1 2 3\n. . . 7 8 9\nfilm 4 5 6\nodd 1 2 3\n"
WANTED = {"film", "the", "zzz", ". . ."}


def read(folder, text, size=3, name="vectors.txt"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return word_vectors.read(path, WANTED, size, "textcnn.embedding")


@pytest.mark.parametrize("text", [GLOVE, f"4 3\n{GLOVE}", GLOVE.replace("\n", " \r\n"), gzip.compress(GLOVE.encode(), mtime=0)])
def test_every_format_returns_only_the_wanted_words(tmp_path, text):
    vectors = read(tmp_path, text)
    assert vectors.keys() == {"the", "film", ". . ."}
    np.testing.assert_array_equal(vectors["film"], np.float32([1, 2, 3]))  # the first of two rows
    np.testing.assert_array_equal(vectors["the"], np.float32([0.5, -1, 0.2]))
    assert vectors["the"].dtype == np.float32


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("the 1 2\n", "row 1: 2 numbers after the word, but textcnn.embedding=3"),
        ("the 1 2 3 4\n", "row 1: 4 numbers after the word, but textcnn.embedding=3"),
        (f"{GLOVE}odd 1 2\n", "row 6: 2 numbers"),
        (f"{GLOVE}\n", "row 6: 0 numbers"),
        ("4 2\nthe 1 2\n", "row 2: 2 numbers"),
        ("odd 1 2 3\nthe 1 x 3\n", "row 2: 'the' has 'x' where a number should be"),
        ("the 1 nan 3\n", "row 1: 'the' has a number that is not finite"),
        (b"the 1 2 3\n\xff\xfe 1 2 3\n", "row 2: not UTF-8"),
        (gzip.compress(GLOVE.encode() * 99, mtime=0)[:-20], "not a whole gzip file"),
        (gzip.compress(GLOVE.encode(), mtime=0)[:12] + b"\0" * 30, "not a whole gzip file"),
    ],
)
def test_an_invalid_row_is_a_one_line_error_that_names_it(tmp_path, text, complaint):
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert complaint in str(error.value) and "vectors.txt" in str(error.value) and "\n" not in str(error.value)


def test_a_word_may_be_a_number(tmp_path):
    WANTED_NUMBER = {"1930"}
    path = tmp_path / "vectors.txt"
    path.write_text("1930 1 2 3\n")
    assert word_vectors.read(path, WANTED_NUMBER, 3, "").keys() == {"1930"}
