"""Loading pretrained parameters outside a run."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from research.data.batches import empty
from research.data.packing import Shape
from research.errors import InputError
from research.models import families
from research.models.heads import EncoderWithHead
from research.weights.checkpoint import Checkpoint, open
from research.weights.graft import graft


def load(source: str, *, sha256: str = "", pickle: bool = False, precision: str = "float32", head: bool = False):
    """Return `(model, params, tokenizer)` of a model by name, folder or hub id.

    `model` is the Flax encoder, with a pooler if the checkpoint has one. `params["encoder"]` are its parameters; `params["head"]` are
    those of the head, if the checkpoint has one of a known kind. The tokenizer is None where the folder has none.
    `out = model.apply({"params": params["encoder"]}, padded_batch(ids, mask))` gives `out.last` [B, L, D], and `out.stages`, a tuple
    of such arrays: the output of the embeddings, then of each layer.

    With `head`, `model` is encoder and head in one: `model.apply({"params": params}, batch)` gives the logits of each example
    [B, E, C], of each token [B, L, C], or over the vocabulary [B, L, V]. `sha256` and `pickle` are as in `open`. Raises InputError where
    a tensor or file is missing, damaged or left over.
    """
    checkpoint = open(source, sha256, pickle)
    tensors = checkpoint.tensors()
    encoder = families.build(checkpoint.config, precision=precision, pooler="encoder/pooler/kernel" in tensors)
    full = EncoderWithHead(encoder, _head(checkpoint, tensors)) if checkpoint.kind else None
    dummy_batch = padded_batch([[0]], [[1]])
    if full is None:
        shapes = {"encoder": jax.eval_shape(encoder.init, jax.random.key(0), dummy_batch)["params"]}
    else:
        shapes = {"head": {}} | jax.eval_shape(full.init, jax.random.key(0), dummy_batch)["params"]
    if head and full is None:
        raise InputError(f"{checkpoint.folder}: the model has no head of a known kind; load it with head=False")
    params = jax.tree.map(jnp.asarray, graft(shapes, tensors, source=str(checkpoint.folder)))
    return full if head else encoder, {**params, **({"head": {}} if full and "head" not in params else {})}, checkpoint.tokenizer()


def _head(checkpoint: Checkpoint, tensors: dict[str, np.ndarray]) -> nn.Module:
    classes = next((t.shape[-1] for name, t in tensors.items() if name.startswith("head/classifier/")), 0)
    pooling = checkpoint.modules.pooling if checkpoint.is_sentence_classifier else "pooler"
    return families.head(checkpoint.config, checkpoint.kind, classes, untied="head/words" in tensors, pooling=pooling)


def padded_batch(input_ids, attention_mask, token_type_ids=None) -> dict[str, np.ndarray]:
    """Return a batch for the models, with one example per row, from the three arrays [B, L] that a tokenizer returns.

    All arrays are int32, except `weights`, which is float32. Raises InputError where the shapes or the lengths of rows differ.
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
    batch = empty(Shape(rows, length, places=1), {})
    batch["tokens"][:], batch["segments"][:], batch["types"][:] = tokens, mask, types
    batch["positions"][:], batch["examples"][:, 0], batch["weights"][:] = np.arange(length), np.arange(rows), 1.0
    return batch
