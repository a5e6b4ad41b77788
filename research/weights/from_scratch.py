"""What a model begins with that nobody has trained before: the words of the training texts, and perhaps vectors for them."""

import dataclasses
import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax.numpy as jnp
import numpy as np

from research.data import vocabulary
from research.errors import InputError
from research.weights import word_vectors

TABLE = "encoder/embeddings/word/embedding"


@dataclasses.dataclass(frozen=True)
class FromScratch:
    """A model of random parameters, in place of a `Checkpoint`.

    `config` is its shape, `words` its vocabulary without special tokens, `path` a file of word vectors or None, `sha256` the digest of
    that file or "".
    """

    config: Mapping[str, Any]
    words: tuple[str, ...]
    path: Path | None
    sha256: str
    modules = None  # as of a `Checkpoint`

    @functools.cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """The vectors of those words that the file has. Raises InputError as `vectors.read` does, and where it has none of them."""
        if self.path is None:
            return {}
        found = word_vectors.read(self.path, frozenset(self.words), self.config["embedding"], f"{self.config['model_type']}.embedding")
        if not found:
            raise InputError(f"{self.path}: no vector for any of the {len(self.words):,} words of the training texts")
        return found

    def notes(self, config: Any, names: Sequence[str]) -> tuple[str, ...]:
        """How many words have a vector, where there is a file of them."""
        if self.path is None:
            return ()
        found, total = len(self.vectors), len(self.words)
        return (f"word vectors: {found:,} of {total:,} words ({found / total:.0%}) are in {self.path}; the others begin random",)

    def tokenizer(self):
        """The fast tokenizer of its words."""
        return vocabulary.tokenizer(self.words)

    def provides(self, name: str, parts: Sequence[str]) -> bool:
        """Never: a word without a vector begins random."""
        return False

    def load_into(self, params: Mapping[str, Any], labels: Sequence[str] = (), numbered: Sequence[str] = ()) -> dict[str, Any]:
        """`params` ({"encoder": ...}, random) with the vectors in the rows of their words."""
        flat, first = flax.traverse_util.flatten_dict(params, sep="/"), len(vocabulary.SPECIAL)
        rows = [first + i for i, word in enumerate(self.words) if word in self.vectors]
        if rows:
            found = np.stack([self.vectors[self.words[row - first]] for row in rows])
            flat[TABLE] = jnp.asarray(flat[TABLE]).at[np.asarray(rows)].set(found)
        return flax.traverse_util.unflatten_dict(flat, sep="/")


def begin(model: str, options: Mapping[str, Any], words: Sequence[str], source: str = "", sha256: str = "") -> FromScratch:
    """The baseline `model` of `hub.BASELINES` with its config's `options`, for `words`; `source` is a file of word vectors, "" for none.

    Raises InputError where there is no such file, or its digest is not `sha256` (unless that is "").
    """
    config = {**options, "model_type": model, "vocab_size": len(vocabulary.SPECIAL) + len(words)}
    path = Path(source) if source else None
    if path is not None and not path.is_file():
        raise InputError(f"weights.source {source!r}: no such file; model={model} takes one of word vectors, or none")
    found = ""
    if path is not None:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    if sha256 and found != sha256.lower():
        raise InputError(f"weights.source {source!r}: sha256 is {found or 'of nothing'}, expected {sha256}")
    return FromScratch(config, tuple(words), path, found)
