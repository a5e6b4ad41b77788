"""Pretrained models: found, verified, read, renamed and grafted."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.data import vocabulary
from research.errors import InputError
from research.models import families
from research.weights import adapter, classes, from_scratch, hub, reader, remarks, sentence, tokenizer
from research.weights.from_scratch import FromScratch
from research.weights.graft import graft
from research.weights.name_map import Table, head_kind, to_ours, with_one_bias
from research.weights.tables import TABLES

NEW = ("encoder/pooler",)  # what may begin random beside a new head: checkpoints of masked language models have no pooler
UNUSED = ("head", "encoder/pooler")  # by a run: a head that knew other labels; a pooler that is read but not wanted


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model's folder whose weights have been verified. `sha256` is the digest of the weights, `source` what was asked for; `pickle`
    says whether a pickle may be read."""

    source: str
    folder: Path
    config: dict[str, Any]
    sha256: str
    pickle: bool = False

    def __post_init__(self):
        families.family(self.config, known=TABLES)  # a baseline has no folder

    @property
    def table(self) -> Table:
        """How this family's parameters are called."""
        return TABLES[self.config["model_type"]]

    @functools.cached_property
    def modules(self) -> sentence.Modules | None:
        """What its folder says of pooling, where it is one of sentence-transformers."""
        return sentence.read(self.folder)

    @functools.cached_property
    def kind(self) -> str | None:
        """Which of `names.KINDS` its head is, None where it has none that is known."""
        return "classifier" if self.is_sentence_classifier else head_kind(self._theirs, self.table, self.config.get("architectures"))

    @functools.cached_property
    def is_sentence_classifier(self) -> bool:
        """Whether its head is the Dense layer of a folder of sentence-transformers."""
        return self.modules is not None and self.modules.is_classifier(self.config)

    @functools.cached_property
    def _theirs(self) -> dict[str, np.ndarray]:
        return reader.read_tensors(self.folder, self.pickle)

    @property
    def labels(self) -> tuple[str, ...]:
        """What the classes of its head are called, in order; () where it has no head of classes. Raises InputError as `classes.names`."""
        size = classes.outputs(self.tensors())
        return classes.names(self.config, size, str(self.folder)) if size else ()

    def tensors(self) -> dict[str, np.ndarray]:
        """Its float32 tensors under our names, such as "encoder/layer_0/mlp/up/kernel", the head's too, if it has one that is known.

        Raises InputError as the readers do.
        """
        return dict(self._ours)

    @functools.cached_property
    def _ours(self) -> dict[str, np.ndarray]:
        tensors = to_ours(with_one_bias(self._theirs), self.table, self.kind)
        if self.config.get("tie_word_embeddings", True):
            tensors.pop("head/words", None)  # the table of words again
        return tensors | (self.modules.classifier() if self.is_sentence_classifier else {})

    def provides(self, name: str, parts: Sequence[str]) -> bool:
        """Whether `load_into` takes the parameter `name` from the file, where it gets these parts of the model."""
        return name in self._ours and name.split("/")[0] in parts

    def load_into(self, params: dict[str, Any], labels: Sequence[str] = (), numbered: Sequence[str] = ()) -> dict[str, Any]:
        """`params` ({"encoder": ...} or with "head", random or shapes) with its tensors in all places; a head's classes in the order of
        `labels`, where `numbered` are the classes of a task that fixes their order.

        Raises InputError as `graft` does, and where the head is of other classes.
        """
        tensors, source = self.tensors(), str(self.folder)
        if "head" in params:
            if self.kind == "tagger":
                raise InputError(f"{source}: its head is for tokens, not for texts; leave out weights.head to begin with a new one")
            tensors = classes.in_order(tensors, self.config, labels, numbered, source)
        unused = tuple(part for part in UNUSED if part not in params)
        return graft(params, tensors, allow_missing=() if "head" in params else NEW, allow_left_over=unused, source=source)

    def notes(self, config: Any, names: Iterable[str]) -> tuple[str, ...]:
        """Return lines for the plan of a run with this config and parameters of these names."""
        return remarks.remarks(self, config, [name for name in names if name.startswith("encoder/") and name not in self._ours])

    def tokenizer(self):
        """Its fast tokenizer, or None where it has none; in lower case where a folder of sentence-transformers asks for that."""
        found = tokenizer.read(self.folder, self.table.tokenizer, self.config, families.family(self.config).shape(self.config).vocab_size)
        lower = self.modules is not None and self.modules.transformer.get("do_lower_case")
        return tokenizer.lowercased(found) if found is not None and lower else found


class RandomInit(Checkpoint):
    """The shape and the tokenizer of a model alone: its parameters begin random."""

    def provides(self, name: str, parts: Sequence[str]) -> bool:
        return False

    def load_into(self, params: dict[str, Any], labels: Sequence[str] = (), numbered: Sequence[str] = ()) -> dict[str, Any]:
        return params

    def notes(self, config: Any, names: Iterable[str]) -> tuple[str, ...]:
        return ()


def begin(config: Any, words: Sequence[str] = ()) -> Checkpoint | FromScratch:
    """What the model of a run's config begins with, by its fields `model` and `weights`; `words` are those of a baseline.

    Raises InputError as `open` and `baseline.begin` do.
    """
    w, scratch = config.weights, config.weights.source == "scratch"
    if (w.head or w.adapter) and (scratch or config.model in hub.BASELINES):
        field = "head" if w.head else "adapter"
        raise InputError(f"weights.{field} is of a pretrained model, but model={config.model} begins from scratch; leave it out")
    if config.model in hub.BASELINES:
        return from_scratch.begin(config.model, config[config.model], words, "" if scratch else w.source, w.sha256)
    source, field = (config.model, "model") if scratch or not w.source else (w.source, "weights.source")
    found = open(source, w.sha256, w.pickle, field)
    return RandomInit(found.source, found.folder, found.config, "") if scratch else found


def own_words(config: Any, texts: Iterable[str]) -> tuple[str, ...]:
    """The words that a baseline takes from the training texts as its vocabulary; () for a model that has one."""
    return vocabulary.words(texts, config[config.model].min_count) if config.model in hub.BASELINES else ()


def head_labels(config: Any) -> tuple[str, ...]:
    """Return what the classes of the head are called that a run of `config` begins with: the adapter's, else the checkpoint's.

    Raises InputError where the only head would be a new one, and as `begin` does.
    """
    checkpoint, folder = begin(config), config.weights.adapter
    found = adapter.labels(Path(folder), checkpoint) if folder else ()
    if not found and not config.weights.head:
        raise InputError(f"{folder}: this adapter has no head, and a new one has not been trained; run --mode=train first")
    return found or checkpoint.labels


def open(source: str, sha256: str = "", pickle: bool = False, field: str = "weights.source") -> Checkpoint:
    """Finds a model by name, folder or hub id and verifies its weights: against `sha256`, or the one pinned for its name.

    With `pickle`, `pytorch_model.bin` is read where there is nothing else, by PyTorch, which makes tensors of it and nothing else.
    `field` of the config named it. Raises InputError where it is not found, its config cannot be read, or the digest is another.
    """
    folder = hub.find(source, pickle, field)
    return Checkpoint(source, folder, reader.read_config(folder), hub.verify(folder, sha256 or hub.pinned(source), pickle), pickle)
