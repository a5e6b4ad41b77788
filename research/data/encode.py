"""Texts to token ids, once: the result is kept on disk by fingerprint and mapped back in the next time."""

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np

from research import cache, whole
from research.data.sources import Examples

VERSION = 1  # part of the fingerprint: raise it when the same texts would be encoded differently


@dataclasses.dataclass(frozen=True)
class Tokens:
    """The token ids of n examples, end to end: `ids` int32 [T], `types` int8 [T], `offsets` int64 [n + 1]. `first_position` is that
    of each example's first token."""

    ids: np.ndarray
    types: np.ndarray
    offsets: np.ndarray
    first_position: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each example, special ones included: int64 [n]."""
        return np.diff(self.offsets)

    def with_places(self, count: int) -> "Tokens":
        """The same with `count` places, of id 0, after each example's first token, for what a model puts there itself."""
        after = np.repeat(self.offsets[:-1] + 1, count)
        offsets = self.offsets + count * np.arange(len(self.offsets))
        types = np.insert(self.types, after, np.repeat(self.types[self.offsets[:-1]], count))
        return dataclasses.replace(self, ids=np.insert(self.ids, after, 0), types=types, offsets=offsets)


def encode(tokenizer, examples: Examples, max_length: int) -> Tokens:
    """Token ids with special tokens, pairs as the tokenizer joins them, cut to `max_length` longest first.

    `tokenizer` is a fast tokenizer of `transformers`. The result is cached; see `fingerprint`.
    """
    path = cache.folder("tokens") / f"{fingerprint(tokenizer, examples, max_length)}.npz"
    if path.exists():
        with np.load(path) as file:
            return Tokens(file["ids"], file["types"], file["offsets"])
    tokens = _encode(tokenizer, examples, max_length)
    _write(path, tokens)
    return tokens


def fingerprint(tokenizer, examples: Examples, max_length: int) -> str:
    """sha256 of all that decides the token ids: the tokenizer, the texts, the length and this module's version."""
    sha = hashlib.sha256(json.dumps([VERSION, max_length]).encode())
    rules = json.loads(tokenizer.backend_tokenizer.to_str())
    sha.update(json.dumps(rules | {"truncation": None, "padding": None}).encode())  # these two are left behind by the latest call
    sha.update(json.dumps(examples.texts).encode())
    return sha.hexdigest()


def _encode(tokenizer, examples: Examples, max_length: int) -> Tokens:
    columns = [list(column) for column in zip(*examples.texts, strict=True)]
    out = tokenizer(*columns, truncation="longest_first", max_length=max_length, return_token_type_ids=True, return_attention_mask=False)
    lengths = [len(row) for row in out["input_ids"]]
    return Tokens(
        ids=np.concatenate([np.asarray(row, np.int32) for row in out["input_ids"]]),
        types=np.concatenate([np.asarray(row, np.int8) for row in out["token_type_ids"]]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def _write(path: Path, tokens: Tokens) -> None:
    with whole.writing(path) as part, part.open("wb") as file:
        np.savez(file, ids=tokens.ids, types=tokens.types, offsets=tokens.offsets)
