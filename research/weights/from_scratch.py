"""The starting point of a model without pretrained weights: the vocabulary of the training texts, and perhaps word vectors."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from research import storage
from research.data import vocabulary
from research.errors import InputError
from research.params.tree import flatten, unflatten
from research.weights import word_vectors

TABLE = "encoder/embeddings/word/embedding"


@dataclasses.dataclass(frozen=True)
class FromScratch:
    """A randomly initialised model, used in place of a `Checkpoint`.

    `config` holds its hyperparameters, `words` its vocabulary without special tokens, `path` a file of word vectors or None, and `sha256`
    the digest of that file or "".
    """

    config: Mapping[str, Any]
    words: tuple[str, ...]
    path: Path | None
    sha256: str
    modules = None  # as in a `Checkpoint` whose folder is not from sentence-transformers

    @functools.cached_property
    def vectors(self) -> dict[str, np.ndarray]:
        """Return the vectors of the words that are in the file. Raises InputError as `word_vectors.read`, and where no word is in it."""
        if self.path is None:
            return {}
        vectors = word_vectors.read(self.path, frozenset(self.words), self.config["embedding"], f"{self.config['model_type']}.embedding")
        if not vectors:
            raise InputError(f"{self.path}: no vector for any of the {len(self.words):,} words of the training texts")
        return vectors

    def notes(self, config: Any, names: Sequence[str]) -> tuple[str, ...]:
        """Return a line for the plan that says how many words have a vector; () without a file of vectors."""
        if self.path is None:
            return ()
        count, total = len(self.vectors), len(self.words)
        return (f"word vectors: {count:,} of {total:,} words ({count / total:.0%}) are in {self.path}; the others begin random",)

    def tokenizer(self):
        """Return a fast tokenizer whose vocabulary is `words`."""
        return vocabulary.tokenizer(self.words)

    def provides(self, name: str, parts: Sequence[str]) -> bool:
        """Return False: no parameter is replaced as a whole, since words without a vector keep random rows."""
        return False

    def load_into(
        self, params: Mapping[str, Any], labels: Sequence[str] = (), numbered: Sequence[str] = (), kind: str = "classifier"
    ) -> dict[str, Any]:
        """Return `params` ({"encoder": ...}, random) with each word vector in the row of its word in the embedding table."""
        flat, first = flatten(params), len(vocabulary.SPECIAL)
        rows = [first + i for i, word in enumerate(self.words) if word in self.vectors]
        if rows:
            vectors = np.stack([self.vectors[self.words[row - first]] for row in rows])
            flat[TABLE] = jnp.asarray(flat[TABLE]).at[np.asarray(rows)].set(vectors)
        return unflatten(flat)


def begin(model: str, options: Mapping[str, Any], words: Sequence[str], source: str = "", sha256: str = "") -> FromScratch:
    """Return the baseline `model`, one of `hub.BASELINES`, with its config's `options` and the vocabulary `words`.

    `source` is a file of word vectors, or "". Raises InputError where the file does not exist, or its digest is not `sha256` (unless
    `sha256` is "").
    """
    config = {**options, "model_type": model, "vocab_size": len(vocabulary.SPECIAL) + len(words)}
    path = Path(source) if source else None
    if path is not None and not path.is_file():
        raise InputError(f"weights.source {source!r}: no such file; model={model} takes a file of word vectors, or none")
    digest = ""
    if path is not None:
        digest = storage.sha256_of([path])
    if sha256 and digest != sha256.lower():
        raise InputError(f"weights.source {source!r}: sha256 is {digest or 'empty, since there is no file'}, expected {sha256}")
    return FromScratch(config, tuple(words), path, digest)
