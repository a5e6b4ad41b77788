"""Tokenization of examples. The token ids are cached on disk under a fingerprint of everything that determines them."""

import dataclasses
import functools
import hashlib
import io
import json
from importlib import metadata
from pathlib import Path

import numpy as np

from research import storage
from research.data.alignment import first_tokens, words_of_tokens
from research.data.examples import Examples
from research.errors import InputError, nearest
from research.tasks.base import word_spans

VERSION = 3  # part of the fingerprint: increase it when a change of this module changes token ids
TRUNCATIONS = ("head", "tail", "head_tail")


@dataclasses.dataclass(frozen=True)
class Tokens:
    """Token ids of n examples, concatenated: `ids` int32 [T], `types` int8 [T] (token types), `offsets` int64 [n + 1].

    `uncut` int64 [n] is the number of tokens of each example before truncation, `first_position` the position of each first token.
    Tokens that are aligned with words have `words` int32 [T], the number of the word (among those of all examples) whose first token it is,
    or -1, and `word_offsets` int64 [n + 1]."""

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    uncut: np.ndarray
    words: np.ndarray | None = None
    word_offsets: np.ndarray | None = None
    first_position: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each example, special tokens included: int64 [n]."""
        return np.diff(self.offsets)

    @property
    def words_without_tokens(self) -> int:
        """Return how many words have no first token: they were cut, or the tokenizer gives them none. 0 without an alignment."""
        return 0 if self.words is None else int(self.word_offsets[-1] - (self.words >= 0).sum())

    def at_first_tokens(self, values: np.ndarray) -> np.ndarray:
        """Return `values` [W, ...] of the words at their first tokens, with 0 at other tokens: [T, ...]. No values stand for zeros."""
        result, is_first = np.zeros((len(self.ids), *values.shape[1:]), values.dtype), self.words >= 0
        if len(values):
            result[is_first] = values[self.words[is_first]]
        return result

    def with_places(self, count: int) -> "Tokens":
        """Return a copy with `count` tokens of id 0 inserted after each first token, as places for vectors that a model adds."""
        after = np.repeat(self.offsets[:-1] + 1, count)
        offsets = self.offsets + count * np.arange(len(self.offsets))
        types = np.insert(self.types, after, np.repeat(self.types[self.offsets[:-1]], count))
        words = None if self.words is None else np.insert(self.words, after, -1)
        return dataclasses.replace(
            self, ids=np.insert(self.ids, after, 0), types=types, offsets=offsets, uncut=self.uncut + count, words=words
        )


def encode(
    tokenizer, examples: Examples, max_length: int, truncation: str = "head", head: int = 0, keep: bool = True, align: bool = False
) -> Tokens:
    """Return the token ids of examples, with special tokens and pairs joined as the tokenizer does, truncated to `max_length`.

    `tokenizer` is a fast tokenizer of `transformers`. `truncation` says which part of a longer text is kept: "head", "tail", or
    "head_tail": the first `head` tokens and as many of the last as fit (Sun et al. 2019, section 5.3.1). Special tokens are always kept
    and count. A pair loses tokens from the end of its longer text first. Unless `keep` is False, the result is cached on disk under its
    `fingerprint`. Raise InputError for an unknown truncation, for pairs with another truncation than "head", and for a `head` that
    leaves no room for a head or a tail. With `align`, for single texts, the tokens are aligned with words.
    """
    if truncation not in TRUNCATIONS:
        raise InputError(f"truncation {truncation!r}: {nearest(truncation, TRUNCATIONS)}")
    if truncation != "head" and len(examples.texts[0]) > 1:
        raise InputError(f"truncation={truncation} is for tasks of one text, and this one has pairs; use truncation=head")
    if not keep:
        return _tokenized(tokenizer, examples, max_length, truncation, head, align)
    path = storage.folder("tokens") / f"{fingerprint(tokenizer, examples, max_length, truncation, head)}{'-words' * align}.npz"
    if storage.intact(path):
        with np.load(io.BytesIO(path.read_bytes()[: -storage.SEAL_BYTES])) as file:
            return Tokens(**file)
    tokens = _tokenized(tokenizer, examples, max_length, truncation, head, align)
    _write(path, tokens)
    return tokens


def _tokenized(tokenizer, examples: Examples, max_length: int, truncation: str, head: int, align: bool) -> Tokens:
    if truncation == "head":
        tokens, words = _encode(tokenizer, examples, max_length, align)
    else:
        tokens, words = _encode_tail(tokenizer, examples, max_length, truncation, head, align)
    if not align:
        return tokens
    word_offsets = np.cumsum([0, *(len(word_spans(text)) for (text,) in examples.texts)]).astype(np.int64)
    words = np.concatenate([np.where(row < 0, -1, row + first) for row, first in zip(words, word_offsets[:-1], strict=True)])
    return dataclasses.replace(tokens, words=words.astype(np.int32), word_offsets=word_offsets)


def fingerprint(tokenizer, examples: Examples, max_length: int, truncation: str = "head", head: int = 0) -> str:
    """Return the sha256 (hex) of all that determines the token ids: the tokenizer and the version of its library, the texts, the maximum
    length, the truncation and `VERSION`. The tokenizer's `truncation_side` has no effect."""
    cut = {"head": [], "tail": ["tail"], "head_tail": ["head_tail", head]}[truncation]
    backend = tokenizer.backend_tokenizer
    settings = [metadata.version("tokenizers"), backend.encode_special_tokens, _has_types(tokenizer)]  # not part of `to_str`
    sha = hashlib.sha256(json.dumps([VERSION, max_length, *cut, settings]).encode())
    rules = json.loads(backend.to_str())
    sha.update(json.dumps(rules | {"truncation": None, "padding": None}).encode())  # the latest call of the tokenizer sets these two
    sha.update(json.dumps(examples.texts).encode())
    return sha.hexdigest()


def _encode(tokenizer, examples: Examples, max_length: int, align: bool) -> tuple[Tokens, list[np.ndarray]]:
    """Return the tokens of the beginning of each example and, with `align`, the index of the word whose first token each is, or -1."""
    columns, side = [list(column) for column in zip(*examples.texts, strict=True)], tokenizer.truncation_side
    tokenizer.truncation_side = "right"  # the run decides about truncation, not the tokenizer's files
    try:
        ids, types, words = _columns(tokenizer, columns, align, truncation="longest_first", max_length=max_length)
    finally:
        tokenizer.truncation_side = side
    tokens = _concatenated(ids, types)
    full = np.flatnonzero(tokens.lengths >= max_length)
    if len(full):
        ids, *_ = _columns(tokenizer, [[column[i] for i in full] for column in columns], False)
        tokens.uncut[full] = [len(row) for row in ids]
    return tokens, words


def _columns(tokenizer, columns: list[list[str]], align: bool, **options) -> tuple[list[list[int]], list[list[int]], list[np.ndarray]]:
    """Return the token ids and the token types of each text, or pair, in the columns, and with `align` the words as `_encode` does."""
    options |= {"return_token_type_ids": True, "return_attention_mask": False, "return_offsets_mapping": align}
    out = tokenizer(*columns, verbose=False, **options)
    types = out["token_type_ids"] if _has_types(tokenizer) else [[0] * len(row) for row in out["input_ids"]]
    offsets = zip(columns[0], out["offset_mapping"], strict=True) if align else ()
    return out["input_ids"], types, [first_tokens(words_of_tokens(text, row)) for text, row in offsets]


def _has_types(tokenizer) -> bool:
    """Return whether the tokenizer gives token types; without them, all tokens have type 0."""
    return "token_type_ids" in tokenizer.model_input_names


def _encode_tail(
    tokenizer, examples: Examples, max_length: int, truncation: str, head: int, align: bool
) -> tuple[Tokens, list[np.ndarray]]:
    """Encode single texts like `_encode`, but remove the beginning ("tail") or the middle ("head_tail") of longer texts."""
    leading, trailing = _special_tokens(tokenizer)
    if truncation == "head_tail" and not leading < head < max_length - trailing:
        room = f"give {leading + 1} to {max_length - trailing - 1}, so that both ends keep a token"
        raise InputError(f"truncation_head={head} of max_length={max_length}: {room}")
    begin = head if truncation == "head_tail" else leading
    ids, types, words = _columns(tokenizer, [[text for (text,) in examples.texts]], align)
    uncut = [len(row) for row in ids]
    words = [np.delete(row, slice(begin, begin + max(len(row) - max_length, 0))) for row in words]
    for row in (*ids, *types):
        del row[begin : begin + max(len(row) - max_length, 0)]
    return dataclasses.replace(_concatenated(ids, types), uncut=np.asarray(uncut, np.int64)), words


def _special_tokens(tokenizer) -> tuple[int, int]:
    """Return the numbers of special tokens that the tokenizer puts before and after a text."""
    mask = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return mask.index(0), mask[::-1].index(0)


def _concatenated(ids: list[list[int]], types: list[list[int]]) -> Tokens:
    lengths = np.asarray([len(row) for row in ids], np.int64)
    return Tokens(
        ids=np.concatenate([np.asarray(row, np.int32) for row in ids]),
        types=np.concatenate([np.asarray(row, np.int8) for row in types]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        uncut=lengths,
    )


def _write(path: Path, tokens: Tokens) -> None:
    with storage.atomic_write(path) as part:
        with part.open("wb") as file:
            names = ("ids", "types", "offsets", "uncut", *(() if tokens.words is None else ("words", "word_offsets")))
            np.savez(file, **{name: getattr(tokens, name) for name in names})
        storage.seal(part)
