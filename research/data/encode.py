"""Texts to token ids, once: the result is kept on disk by fingerprint and mapped back in the next time."""

import dataclasses
import functools
import hashlib
import io
import json
from importlib import metadata
from pathlib import Path

import numpy as np

from research import storage
from research.data.examples import Examples
from research.errors import InputError, nearest

VERSION = 3  # part of the fingerprint: raise it when the same texts would be encoded differently
TRUNCATIONS = ("head", "tail", "head_tail")


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The token ids of n examples, end to end: `ids` int32 [T], `types` int8 [T], `offsets` int64 [n + 1]. `first_position` is that
    of each example's first token, `uncut` int64 [n] how many tokens each example would have if nothing had been cut."""

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    uncut: np.ndarray
    first_position: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, special ones included: int64 [n]."""
        return np.diff(self.offsets)

    def with_places(self, count: int) -> "Tokens":
        """The same with `count` places, of id 0, after each example's first token, for what a model puts there itself."""
        after = np.repeat(self.offsets[:-1] + 1, count)
        offsets = self.offsets + count * np.arange(len(self.offsets))
        types = np.insert(self.types, after, np.repeat(self.types[self.offsets[:-1]], count))
        return dataclasses.replace(self, ids=np.insert(self.ids, after, 0), types=types, offsets=offsets, uncut=self.uncut + count)


def encode(tokenizer, examples: Examples, max_length: int, truncation: str = "head", head: int = 0, keep: bool = True) -> Tokens:
    """Token ids with special tokens, pairs as the tokenizer joins them, cut to `max_length`.

    `tokenizer` is a fast tokenizer of `transformers`. Of a longer text `truncation` leaves its "head", its "tail", or with "head_tail"
    the first `head` tokens and as many of the last as there is room for (Sun et al. 2019, section 5.3.1); special tokens stay, and
    count. Of pairs, the longer text loses its end first. The result is kept on disk by its
    `fingerprint`, unless `keep` is False.
    Raises InputError for another truncation, for one of pairs that is not "head", and for a `head` that leaves no room for a tail.
    """
    if truncation not in TRUNCATIONS:
        raise InputError(f"truncation {truncation!r}: {nearest(truncation, TRUNCATIONS)}")
    if truncation != "head" and len(examples.texts[0]) > 1:
        raise InputError(f"truncation={truncation} is for tasks of one text, and this one has pairs; use truncation=head")
    if not keep:
        return _tokenized(tokenizer, examples, max_length, truncation, head)
    path = storage.folder("tokens") / f"{fingerprint(tokenizer, examples, max_length, truncation, head)}.npz"
    if storage.intact(path):
        with np.load(io.BytesIO(path.read_bytes()[: -storage.SEAL_BYTES])) as file:
            return Tokens(**file)
    tokens = _tokenized(tokenizer, examples, max_length, truncation, head)
    _write(path, tokens)
    return tokens


def _tokenized(tokenizer, examples: Examples, max_length: int, truncation: str, head: int) -> Tokens:
    plain = truncation == "head"
    return _encode(tokenizer, examples, max_length) if plain else _around(tokenizer, examples, max_length, truncation, head)


def fingerprint(tokenizer, examples: Examples, max_length: int, truncation: str = "head", head: int = 0) -> str:
    """sha256 of all that decides the token ids: the tokenizer and its library, the texts, the length, what is cut and this module's
    version. On which side the tokenizer itself would cut decides nothing."""
    cut = {"head": [], "tail": ["tail"], "head_tail": ["head_tail", head]}[truncation]
    backend = tokenizer.backend_tokenizer
    of_tokenizer = [metadata.version("tokenizers"), backend.encode_special_tokens, _has_types(tokenizer)]  # which the rules do not say
    sha = hashlib.sha256(json.dumps([VERSION, max_length, *cut, of_tokenizer]).encode())
    rules = json.loads(backend.to_str())
    sha.update(json.dumps(rules | {"truncation": None, "padding": None}).encode())  # these two are left behind by the latest call
    sha.update(json.dumps(examples.texts).encode())
    return sha.hexdigest()


def _encode(tokenizer, examples: Examples, max_length: int) -> Tokens:
    columns, side = [list(column) for column in zip(*examples.texts, strict=True)], tokenizer.truncation_side
    tokenizer.truncation_side = "right"  # whatever its files say: which part is left is the run's to decide
    try:
        tokens = _joined(*_called(tokenizer, columns, truncation="longest_first", max_length=max_length))
    finally:
        tokenizer.truncation_side = side
    full = np.flatnonzero(tokens.lengths >= max_length)
    if len(full):
        ids, _ = _called(tokenizer, [[column[i] for i in full] for column in columns])
        tokens.uncut[full] = [len(row) for row in ids]
    return tokens


def _called(tokenizer, columns: list[list[str]], **options) -> tuple[list[list[int]], list[list[int]]]:
    """Ids and types of each text, or pair, of the columns."""
    out = tokenizer(*columns, return_token_type_ids=True, return_attention_mask=False, verbose=False, **options)
    types = out["token_type_ids"] if _has_types(tokenizer) else [[0] * len(row) for row in out["input_ids"]]
    return out["input_ids"], types


def _has_types(tokenizer) -> bool:
    """Return whether the tokenizer tells types of tokens apart, for models that do; else all are of type 0."""
    return "token_type_ids" in tokenizer.model_input_names


def _around(tokenizer, examples: Examples, max_length: int, truncation: str, head: int) -> Tokens:
    """As `_encode`, of single texts, with the beginning or the middle of longer ones left out."""
    leading, trailing = _special(tokenizer)
    if truncation == "head_tail" and not leading < head < max_length - trailing:
        room = f"give {leading + 1} to {max_length - trailing - 1}, so that something is left of both ends"
        raise InputError(f"truncation_head={head} of max_length={max_length}: {room}")
    begin = head if truncation == "head_tail" else leading
    columns = _called(tokenizer, [[text for (text,) in examples.texts]])
    uncut = [len(row) for row in columns[0]]
    for row in (row for column in columns for row in column):
        del row[begin : begin + max(len(row) - max_length, 0)]
    return dataclasses.replace(_joined(*columns), uncut=np.asarray(uncut, np.int64))


def _special(tokenizer) -> tuple[int, int]:
    """How many special tokens are put before and after a text."""
    mask = tokenizer("a", return_special_tokens_mask=True)["special_tokens_mask"]
    return mask.index(0), mask[::-1].index(0)


def _joined(ids: list[list[int]], types: list[list[int]]) -> Tokens:
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
            np.savez(file, ids=tokens.ids, types=tokens.types, offsets=tokens.offsets, uncut=tokens.uncut)
        storage.seal(part)
