"""Renaming tensors between PyTorch's names and ours, by a table of names, in either direction."""

import dataclasses
import re
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from research.errors import InputError

# Kinds of heads, and how the names of `transformers`' classes end that have them.
KINDS = {"classifier": "ForSequenceClassification", "tagger": "ForTokenClassification", "masked_lm": "ForMaskedLM", "lm": "LMHeadModel"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor: its name there, its name here, and whether a matrix is transposed on the way (either way).

    `*` stands for a layer's number in both, `$` in ours for the last layer's. Several names here are parts of one tensor there: as many
    equal pieces of its outputs.
    """

    torch: str
    ours: tuple[str, ...]
    transpose: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A family's rows: the encoder's, and those of each kind of head; and how `transformers` calls its classes.

    `hub` is how the names of its models begin there, `tokenizer` the class that `AutoTokenizer` has for it, "" for the generic one.
    `prefix` may stand before the encoder's PyTorch names; `aliases` are endings that old files use; names that `ignored` (a regular
    expression) covers are not read: buffers, heads that no task here has, and what a file says twice.
    """

    rows: tuple[Row, ...]
    prefix: str
    heads: dict[str, tuple[Row, ...]]
    hub: str
    tokenizer: str = ""
    ignored: str = ""
    aliases: tuple[tuple[str, str], ...] = ()


def to_ours(tensors: dict[str, np.ndarray], table: Table, kind: str | None = None) -> dict[str, np.ndarray]:
    """The tensors under our names ("/" between components) and in our layout; of heads, those of `kind`, where that is given.

    A tensor that the table neither maps nor ignores keeps its own name: no model has a place for it, so `graft` lists it as
    left over. Raises InputError on two tensors for one place, and on integers where there should be floats.
    """
    heads = [row for head, rows in table.heads.items() if head == kind for row in rows]
    others = [row for head, rows in table.heads.items() if head != kind for row in rows]
    ours, last = {}, max((int(n) for name in tensors for n in _numbers(plain(name, table), table.rows)), default=0)
    for name, tensor in tensors.items():
        short = plain(name, table)
        if re.fullmatch(table.ignored, short):
            continue
        row, number = _locate(short, (*table.rows, *heads))
        if row is None:
            if _locate(short, others)[0] is None:
                ours[name] = tensor
            continue
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise InputError(f"tensor {name}: {tensor.dtype}, not floating point; quantised weights are not read")
        parts = np.split(tensor.T if row.transpose else tensor, len(row.ours), axis=-1)
        for place, part in zip((_filled(pattern, number, last) for pattern in row.ours), parts, strict=True):
            if place in ours:
                raise InputError(f"tensor {name}: {place} is there under another name too")
            ours[place] = part
    return ours


def to_theirs(ours: dict[str, np.ndarray], table: Table, kind: str | None = None, prefix: bool = True) -> dict[str, np.ndarray]:
    """The inverse of `to_ours`: tensors under PyTorch's names and in its layout, contiguous; the encoder's with the family's `prefix`,
    or without. Raises InputError on a name that the table does not know."""
    heads, found, left = table.heads.get(kind, ()), {}, dict(ours)
    last = max((int(n) for name in ours for n in re.findall(r"/layer_(\d+)/", name)), default=0)
    for row in (*table.rows, *heads):
        pattern = re.escape(row.ours[0].replace("$", str(last))).replace(r"\*", r"(\d+)")
        for match in [match for name in ours if (match := re.fullmatch(pattern, name))]:
            number = "".join(match.groups())
            parts = [left.pop(_filled(place, number, last)) for place in row.ours]
            tensor = np.concatenate(parts, axis=-1)
            name = ("" if row in heads or not prefix else table.prefix) + row.torch.replace("*", number)
            found[name] = np.ascontiguousarray(tensor.T if row.transpose else tensor)
    if left:
        raise InputError(f"no name in `transformers` for {shortened(sorted(left))}")
    return found


def with_one_bias(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors under PyTorch's names, with the bias that is added to words where other families have it: the last layer's own, which
    `transformers` 5 keeps apart from "bias" beside it, and unused, where the layer is not the table of words."""
    own = {name: name.removesuffix("decoder.bias") + "bias" for name in tensors if name.endswith("decoder.bias")}
    return {**tensors, **{other: tensors[name] for name, other in own.items() if other in tensors}}


def head_kind(names: Iterable[str], table: Table, architectures: Iterable[str] = ()) -> str | None:
    """Which of `KINDS` a checkpoint's head is: what its architecture says, where it has the tensors or needs none, else what they say."""
    short = [plain(name, table) for name in names]
    there = [kind for kind, rows in table.heads.items() if any(_locate(name, rows)[0] for name in short)]
    said = [kind for kind, ending in KINDS.items() for name in architectures or () if name.endswith(ending) and kind in table.heads]
    needs_none = [kind for kind in said if all(row.ours == ("head/words",) for row in table.heads[kind])]
    return next(iter([*(kind for kind in said if kind in there), *needs_none, *there]), None)


def rename(name: str, pattern: str, other: str) -> str | None:
    """`name`, which fits `pattern`, said as `other`; None where it does not fit."""
    match = re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), name)
    return other.replace("*", "".join(match.groups())) if match else None


def shortened(names: list[str], most: int = 4) -> str:
    """The names for an error message: the first few, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def plain(name: str, table: Table) -> str:
    """A PyTorch name as the rows have it: without the prefix, with today's ending."""
    name = name.removeprefix(table.prefix)
    for old, new in table.aliases:
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name


def _locate(name: str, rows: Iterable[Row]) -> tuple[Row | None, str]:
    """The row that a plain PyTorch name belongs to, and its layer's number, "" where it has none."""
    for row in rows:
        if (number := rename(name, row.torch, "*")) is not None:
            return row, number if "*" in row.torch else ""
    return None, ""


def _filled(pattern: str, number: str, last: int) -> str:
    return pattern.replace("*", number).replace("$", str(last))


def _numbers(name: str, rows: Iterable[Row]) -> list[str]:
    row, number = _locate(name, rows)
    return [number] if row and number else []
