"""Fixtures of the data tests."""

import pytest

from research.errors import InputError


@pytest.fixture
def refused():
    """Return a function that checks that a call raises InputError with one line that contains all the pieces."""

    def check(call, *pieces):
        with pytest.raises(InputError) as caught:
            call()
        message = str(caught.value)
        assert "\n" not in message
        for piece in pieces:
            assert piece in message, f"{piece!r} is not in {message!r}"

    return check


@pytest.fixture
def folder(tmp_path):
    """Write a folder without a dev split: 80 training and 20 test examples, three "neg" for each "pos"."""
    for split, size in (("train", 80), ("test", 20)):
        rows = [f"{split} text {i}\t{'neg' if i % 4 else 'pos'}" for i in range(size)]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text\tlabel", *rows]) + "\n")
    return tmp_path
