"""Pretrained models: found, verified, read, renamed and grafted."""

import dataclasses
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research import models
from research.errors import InputError, nearest
from research.weights import hub, read
from research.weights.graft import graft
from research.weights.tables import TABLES, to_ours


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A model's folder whose weights have been verified. `sha256` is the digest of the weights, `source` what was asked for."""

    source: str
    folder: Path
    config: dict[str, Any]
    sha256: str

    def tensors(self) -> dict[str, np.ndarray]:
        """Its float32 tensors under our names, such as "encoder/layer_0/mlp/up/kernel". Raises InputError as the readers do."""
        kind = self.config.get("model_type")
        if kind not in TABLES:
            raise InputError(f"{self.folder}: no name table for model_type {kind!r}; {nearest(str(kind), TABLES)}")
        return to_ours(read.read_tensors(self.folder), TABLES[kind])

    def tokenizer(self):
        """Its fast tokenizer, or None where it has none."""
        return read.read_tokenizer(self.folder, self.config.get("vocab_size", 0))


def open(source: str, sha256: str = "") -> Checkpoint:
    """Finds a model by name, folder or hub id and verifies its weights: against `sha256`, or the one pinned for its name.

    Raises InputError where it is not found, its config cannot be read, or the digest is another.
    """
    folder = hub.find(source)
    return Checkpoint(source, folder, read.read_config(folder), hub.verify(folder, sha256 or hub.pinned(source)))


def load(source: str, *, sha256: str = "", precision: str = "float32"):
    """`(model, params, tokenizer)` of a model by name, folder or hub id.

    `model` is the Flax encoder, with a pooler if the checkpoint has one; `params["encoder"]` are its parameters, and
    `params["head"]` those of the classifier, if the checkpoint has one that is known; the tokenizer is None where the folder has none.
    `out = model.apply({"params": params["encoder"]}, padded_batch(ids, mask))` gives `out.last` [B, L, D], and `out.stages`, a tuple
    of the same: the embeddings' output, then each layer's. Raises InputError where anything is missing, damaged or left over.
    """
    checkpoint = open(source, sha256)
    tensors = checkpoint.tensors()
    model = models.build(checkpoint.config, precision=precision, pooler="encoder/pooler/kernel" in tensors)
    params = graft(_shapes(model, tensors), tensors, source=str(checkpoint.folder))
    return model, jax.tree.map(jnp.asarray, params), checkpoint.tokenizer()


def padded_batch(input_ids, attention_mask, token_type_ids=None) -> dict[str, np.ndarray]:
    """The batch that models take, with one example a row, from three arrays [B, L] as a tokenizer gives them.

    All int32 but the float32 `weights`. Raises InputError where the shapes disagree or rows differ in length.
    """
    try:
        tokens, mask = np.asarray(input_ids), np.asarray(attention_mask)
        types = np.zeros_like(tokens) if token_type_ids is None else np.asarray(token_type_ids)
    except ValueError as error:
        raise InputError("a batch takes rows of one length; call the tokenizer with padding=True") from error
    shapes = {"input_ids": tokens.shape, "attention_mask": mask.shape, "token_type_ids": types.shape}
    if tokens.ndim != 2 or len(set(shapes.values())) > 1:
        raise InputError(f"a batch takes arrays of one shape [B, L], not {', '.join(f'{k} {v}' for k, v in shapes.items())}")
    rows, length = tokens.shape
    batch = {
        "tokens": tokens,
        "positions": np.broadcast_to(np.arange(length), tokens.shape),
        "segments": mask,
        "types": types,
        "anchors": np.zeros((rows, 1)),
        "labels": np.zeros((rows, 1)),
        "examples": np.arange(rows)[:, None],
    }
    return {name: array.astype(np.int32) for name, array in batch.items()} | {"weights": np.ones((rows, 1), np.float32)}


def _shapes(model: nn.Module, tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """What the model's parameters must be; and the classifier's, by the number of classes that the checkpoint has."""
    one = padded_batch([[0]], [[1]])
    shapes = {"encoder": jax.eval_shape(model.init, jax.random.key(0), one)["params"]}
    classes = next((t.shape[-1] for name, t in tensors.items() if name.startswith("head/classifier/")), None)
    if classes is not None:
        size = model.config.hidden_size
        kernel, bias = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((size, classes), (classes,)))
        shapes["head"] = {"classifier": {"kernel": kernel, "bias": bias}}
    return shapes
