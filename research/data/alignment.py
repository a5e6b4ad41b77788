"""Alignment of words, tokens and characters by the characters that each token stands for."""

from collections.abc import Sequence

import numpy as np

from research.tasks.base import word_spans


def words_of_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the index of the word of each token, -1 for tokens of no word: int32 [tokens].

    `offsets` are the first character of each token in the text and the one after its last, equal for special tokens. A token belongs to the
    word of its last character, since the first may be the blank before the word."""
    spans = np.asarray(word_spans(text), np.int64).reshape(-1, 2)
    begin, end = np.asarray(offsets, np.int64).reshape(-1, 2).T
    words = np.searchsorted(spans[:, 0], end, side="left") - 1
    inside = (end > begin) & (words >= 0) & (end <= spans[:, 1][words] if len(spans) else False)
    return np.where(inside, words, -1).astype(np.int32)


def first_tokens(words: np.ndarray) -> np.ndarray:
    """Return `words` with -1 at all tokens of a word but its first: int32 [tokens]."""
    _, places = np.unique(words, return_index=True)
    return np.where(np.isin(np.arange(len(words)), places), words, -1).astype(np.int32)
