"""Names of other people's parameters and ours, as data.

A row says a PyTorch name, our name and how the tensor is turned; `*` stands for a layer's number in both, so that a row can be
read in either direction.
"""

import dataclasses
import re

import jax.numpy as jnp
import numpy as np

from research.errors import InputError


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor: its name there, its name here, and whether a matrix is transposed on the way (either way)."""

    torch: str
    ours: str
    transpose: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A family's rows. `prefix` may stand before any PyTorch name; `aliases` are endings that old files use; names that begin
    with one of `ignored` are not read: buffers and heads that no task here has."""

    rows: tuple[Row, ...]
    prefix: str = ""
    aliases: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()


def _dense(torch: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{torch}.weight", f"{ours}/kernel", transpose=True), Row(f"{torch}.bias", f"{ours}/bias")


def _norm(torch: str, ours: str) -> tuple[Row, Row]:
    return Row(f"{torch}.weight", f"{ours}/scale"), Row(f"{torch}.bias", f"{ours}/bias")


BERT = Table(
    rows=(
        Row("embeddings.word_embeddings.weight", "encoder/embeddings/word/embedding"),
        Row("embeddings.position_embeddings.weight", "encoder/embeddings/position/embedding"),
        Row("embeddings.token_type_embeddings.weight", "encoder/embeddings/type/embedding"),
        *_norm("embeddings.LayerNorm", "encoder/embeddings/norm"),
        *_dense("encoder.layer.*.attention.self.query", "encoder/layer_*/attention/query"),
        *_dense("encoder.layer.*.attention.self.key", "encoder/layer_*/attention/key"),
        *_dense("encoder.layer.*.attention.self.value", "encoder/layer_*/attention/value"),
        *_dense("encoder.layer.*.attention.output.dense", "encoder/layer_*/attention/output"),
        *_norm("encoder.layer.*.attention.output.LayerNorm", "encoder/layer_*/attention/norm"),
        *_dense("encoder.layer.*.intermediate.dense", "encoder/layer_*/mlp/up"),
        *_dense("encoder.layer.*.output.dense", "encoder/layer_*/mlp/down"),
        *_norm("encoder.layer.*.output.LayerNorm", "encoder/layer_*/mlp/norm"),
        *_dense("pooler.dense", "encoder/pooler"),
        *_dense("classifier", "head/classifier"),
    ),
    prefix="bert.",
    aliases=((".gamma", ".weight"), (".beta", ".bias")),
    ignored=("embeddings.position_ids", "cls.", "qa_outputs."),
)

TABLES = {"bert": BERT}  # by the `model_type` of config.json


def to_ours(tensors: dict[str, np.ndarray], table: Table) -> dict[str, np.ndarray]:
    """The tensors under our names ("/" between components) and in our layout.

    A tensor that the table neither maps nor ignores keeps its own name: no model has a place for it, so `graft` lists it as
    left over. Raises InputError on two tensors for one place, and on integers where there should be floats.
    """
    ours = {}
    for name, tensor in tensors.items():
        plain = _plain(name, table)
        if plain.startswith(table.ignored):
            continue
        row, place = _locate(plain, table)
        if row is None:
            ours[name] = tensor
            continue
        if place in ours:
            raise InputError(f"tensor {name}: {place} is there under another name too")
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise InputError(f"tensor {name}: {tensor.dtype}, not floating point; quantised weights are not read")
        ours[place] = tensor.T if row.transpose else tensor
    return ours


def rename(name: str, pattern: str, other: str) -> str | None:
    """`name`, which fits `pattern`, said as `other`; None where it does not fit."""
    match = re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), name)
    return other.replace("*", "".join(match.groups())) if match else None


def shortened(names: list[str], most: int = 4) -> str:
    """The names for an error message: the first few, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _plain(name: str, table: Table) -> str:
    name = name.removeprefix(table.prefix)
    for old, new in table.aliases:
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name


def _locate(name: str, table: Table) -> tuple[Row | None, str | None]:
    places = ((row, rename(name, row.torch, row.ours)) for row in table.rows)
    return next(((row, place) for row, place in places if place), (None, None))
