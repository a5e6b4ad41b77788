"""Pretrained checkpoints: opening a model's folder, verifying its weights, and loading them into Flax parameters."""

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
from research.weights.name_map import Table, head_kind, to_flax, with_one_bias
from research.weights.tables import TABLES

NEW = ("encoder/pooler",)  # may be initialised randomly beside a new head: checkpoints of masked language models have no pooler
READS = {"classifier": "texts", "tagger": "tokens"}  # kinds of heads whose classes are those of a task
UNUSED = ("head", "encoder/pooler")  # tensors that a run may drop: a head for other labels; a pooler that the run's model does not have


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model's folder whose weights have been verified.

    `source` is the name, folder or hub id that was requested, `config` the content of its `config.json`, and `sha256` the digest of its
    weights. `pickle` allows reading `pytorch_model.bin`.
    """

    source: str
    folder: Path
    config: dict[str, Any]
    sha256: str
    pickle: bool = False

    def __post_init__(self):
        families.family(self.config, known=TABLES)  # the baselines are families too, but have no folder of weights

    @property
    def table(self) -> Table:
        """Return the table of parameter names of this checkpoint's family."""
        return TABLES[self.config["model_type"]]

    @functools.cached_property
    def modules(self) -> sentence.Modules | None:
        """Return the modules that the folder describes, or None where it is not a folder of sentence-transformers."""
        return sentence.read(self.folder)

    @functools.cached_property
    def kind(self) -> str | None:
        """Return the kind of its head, one of `name_map.KINDS`, or None where it has no head of a known kind."""
        return "classifier" if self.is_sentence_classifier else head_kind(self._torch_tensors, self.table, self.config.get("architectures"))

    @functools.cached_property
    def is_sentence_classifier(self) -> bool:
        """Return whether its head is the Dense layer of a folder of sentence-transformers."""
        return self.modules is not None and self.modules.is_classifier(self.config)

    @functools.cached_property
    def _torch_tensors(self) -> dict[str, np.ndarray]:
        return reader.read_tensors(self.folder, self.pickle)

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the class names of its head, in the order of its outputs; () without classes. Raises InputError as `classes.names`."""
        size = classes.outputs(self.tensors())
        return classes.names(self.config, size, str(self.folder)) if size else ()

    def tensors(self) -> dict[str, np.ndarray]:
        """Return its float32 tensors under Flax names, such as "encoder/layer_0/mlp/up/kernel", with those of a head of a known kind.

        Raises InputError as `reader.read_tensors` does.
        """
        return dict(self._flax_tensors)

    @functools.cached_property
    def _flax_tensors(self) -> dict[str, np.ndarray]:
        tensors = to_flax(with_one_bias(self._torch_tensors), self.table, self.kind)
        if self.config.get("tie_word_embeddings", True):
            tensors.pop("head/words", None)  # a copy of the word embeddings
        return tensors | (self.modules.classifier() if self.is_sentence_classifier else {})

    def provides(self, name: str, parts: Sequence[str]) -> bool:
        """Return whether `load_into` replaces the parameter `name` when it is given `parts` ("encoder", "head") of the model."""
        return name in self._flax_tensors and name.split("/")[0] in parts

    def load_into(
        self, params: dict[str, Any], labels: Sequence[str] = (), numbered: Sequence[str] = (), kind: str = "classifier"
    ) -> dict[str, Any]:
        """Return `params` with every leaf replaced by the checkpoint's tensor.

        `params` is {"encoder": ...}, perhaps with "head", of arrays or ShapeDtypeStructs. A head's classes are put in the order of
        `labels`; `numbered` are the classes of a task that fixes their order. Raises InputError as `graft` does, and where the head is not
        of `kind` or has other classes than the task.
        """
        tensors, source = self.tensors(), str(self.folder)
        if "head" in params:
            if self.kind in READS and self.kind != kind:
                what = f"its head is for {READS[self.kind]}, not for {READS[kind]}"
                raise InputError(f"{source}: {what}; leave out weights.head to begin with a new one")
            tensors = classes.in_order(tensors, self.config, labels, numbered, source)
        unused = tuple(part for part in UNUSED if part not in params)
        return graft(params, tensors, allow_missing=() if "head" in params else NEW, allow_left_over=unused, source=source)

    def notes(self, config: Any, names: Iterable[str]) -> tuple[str, ...]:
        """Return lines about this checkpoint for the plan of a run with `config` whose parameters have these names."""
        return remarks.remarks(self, config, [name for name in names if name.startswith("encoder/") and name not in self._flax_tensors])

    def tokenizer(self):
        """Return its fast tokenizer, or None where it has none. It lowercases texts where a folder of sentence-transformers says so."""
        fast = tokenizer.read(self.folder, self.table.tokenizer, self.config, families.family(self.config).shape(self.config).vocab_size)
        lower = self.modules is not None and self.modules.transformer.get("do_lower_case")
        return tokenizer.lowercased(fast) if fast is not None and lower else fast


class RandomInit(Checkpoint):
    """A checkpoint of which only the config and the tokenizer are used: the parameters are initialised randomly."""

    def provides(self, name: str, parts: Sequence[str]) -> bool:
        return False

    def load_into(
        self, params: dict[str, Any], labels: Sequence[str] = (), numbered: Sequence[str] = (), kind: str = "classifier"
    ) -> dict[str, Any]:
        return params

    def notes(self, config: Any, names: Iterable[str]) -> tuple[str, ...]:
        return ()


def begin(config: Any, words: Sequence[str] = ()) -> Checkpoint | FromScratch:
    """Return what the model of a run starts from, by the config's fields `model` and `weights`; `words` are the vocabulary of a baseline.

    Raises InputError as `open` and `from_scratch.begin` do.
    """
    w, scratch = config.weights, config.weights.source == "scratch"
    if (w.head or w.adapter) and (scratch or config.model in hub.BASELINES):
        field = "head" if w.head else "adapter"
        raise InputError(f"weights.{field} needs a pretrained model, but model={config.model} is trained from scratch; leave it out")
    if config.model in hub.BASELINES:
        return from_scratch.begin(config.model, config[config.model], words, "" if scratch else w.source, w.sha256)
    source, field = (config.model, "model") if scratch or not w.source else (w.source, "weights.source")
    checkpoint = open(source, w.sha256, w.pickle, field)
    return RandomInit(checkpoint.source, checkpoint.folder, checkpoint.config, "") if scratch else checkpoint


def training_words(config: Any, texts: Iterable[str]) -> tuple[str, ...]:
    """Return the vocabulary that a baseline takes from the training texts; () for a model whose tokenizer has a vocabulary."""
    return vocabulary.words(texts, config[config.model].min_count) if config.model in hub.BASELINES else ()


def head_labels(config: Any) -> tuple[str, ...]:
    """Return the class names of the pretrained head that a run of `config` starts from: the adapter's head, else the checkpoint's.

    Raises InputError where the run would start with a new head, and as `begin` does.
    """
    checkpoint, folder = begin(config), config.weights.adapter
    labels = adapter.labels(Path(folder), checkpoint) if folder else ()
    if not labels and not config.weights.head:
        raise InputError(f"{folder}: this adapter has no head, and a new one has not been trained; run --mode=train first")
    return labels or checkpoint.labels


def open(source: str, sha256: str = "", pickle: bool = False, field: str = "weights.source") -> Checkpoint:
    """Find a model by name, folder or hub id and verify its weights against `sha256`, or else the digest pinned for its name.

    With `pickle`, `pytorch_model.bin` is read where there is no other weight file, by PyTorch's loader that unpickles only tensors.
    `field` is the config field to name in messages. Raises InputError where the model is not found, its config cannot be read, or the
    digest differs.
    """
    folder = hub.find(source, pickle, field)
    return Checkpoint(source, folder, reader.read_config(folder), hub.verify(folder, sha256 or hub.pinned(source), pickle), pickle)
