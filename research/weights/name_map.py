"""Conversion of tensors between PyTorch names and layout and Flax names and layout, by a table of names, in both directions."""

import dataclasses
import re
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from research.errors import InputError

# Kinds of heads -> the suffix of the `transformers` classes that have such a head.
KINDS = {"classifier": "ForSequenceClassification", "tagger": "ForTokenClassification", "masked_lm": "ForMaskedLM", "lm": "LMHeadModel"}


@dataclasses.dataclass(frozen=True)
class Row:
    """One PyTorch tensor: its name in PyTorch, its names in Flax, and whether the conversion transposes it.

    `*` stands for a layer's number in both, `$` in a Flax name for the number of the last layer. Several Flax names mean that the PyTorch
    tensor is split into as many equal pieces along its outputs.
    """

    torch: str
    flax: tuple[str, ...]
    transpose: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """The names of a model family: the rows of the encoder, the rows of each kind of head, and the names of its `transformers` classes.

    `hub` is the prefix of the family's model classes in `transformers`, `tokenizer` the class that `AutoTokenizer` uses for it ("" for the
    generic one). `prefix` may stand before the encoder's PyTorch names. `aliases` are (old, current) endings of names. Tensors whose names
    match the regular expression `ignored` are not read: buffers, heads that no task here has, and duplicates.
    """

    rows: tuple[Row, ...]
    prefix: str
    heads: dict[str, tuple[Row, ...]]
    hub: str
    tokenizer: str = ""
    ignored: str = ""
    aliases: tuple[tuple[str, str], ...] = ()


def to_flax(tensors: dict[str, np.ndarray], table: Table, kind: str | None = None) -> dict[str, np.ndarray]:
    """Return `tensors` under Flax names ("/" between components) and in Flax layout, with those of the head of `kind`, where it is given.

    A tensor that the table neither maps nor ignores keeps its PyTorch name, so that `graft` lists it as left over. Raises InputError on
    two tensors for one parameter, and on tensors that are not floating point.
    """
    head_rows = [row for head, rows in table.heads.items() if head == kind for row in rows]
    other_head_rows = [row for head, rows in table.heads.items() if head != kind for row in rows]
    flax_tensors, last = {}, max((int(n) for name in tensors for n in _numbers(canonical(name, table), table.rows)), default=0)
    for name, tensor in tensors.items():
        short = canonical(name, table)
        if re.fullmatch(table.ignored, short):
            continue
        row, number = _locate(short, (*table.rows, *head_rows))
        if row is None:
            if _locate(short, other_head_rows)[0] is None:
                flax_tensors[name] = tensor
            continue
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            raise InputError(f"tensor {name}: {tensor.dtype}, not floating point; quantised weights are not read")
        parts = np.split(tensor.T if row.transpose else tensor, len(row.flax), axis=-1)
        for flax_name, part in zip((_filled(pattern, number, last) for pattern in row.flax), parts, strict=True):
            if flax_name in flax_tensors:
                raise InputError(f"tensor {name}: {flax_name} is there under another name too")
            flax_tensors[flax_name] = part
    return flax_tensors


def to_torch(tensors: dict[str, np.ndarray], table: Table, kind: str | None = None, prefix: bool = True) -> dict[str, np.ndarray]:
    """Return Flax `tensors` under PyTorch names and in PyTorch layout, contiguous: the inverse of `to_flax`.

    `prefix` says whether the encoder's names get the family's prefix. Raises InputError on a name that is not in the table.
    """
    head_rows, torch_tensors, left = table.heads.get(kind, ()), {}, dict(tensors)
    last = max((int(n) for name in tensors for n in re.findall(r"/layer_(\d+)/", name)), default=0)
    for row in (*table.rows, *head_rows):
        pattern = row.flax[0].replace("$", str(last))
        for number in [number for name in tensors if (number := number_of(name, pattern)) is not None]:
            parts = [left.pop(_filled(flax_name, number, last)) for flax_name in row.flax]
            tensor = np.concatenate(parts, axis=-1)
            name = ("" if row in head_rows or not prefix else table.prefix) + row.torch.replace("*", number)
            torch_tensors[name] = np.ascontiguousarray(tensor.T if row.transpose else tensor)
    if left:
        raise InputError(f"no name in `transformers` for {shortened(sorted(left))}")
    return torch_tensors


def with_one_bias(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return PyTorch `tensors` in which the bias that is added to a masked language model's logits is the one named "bias".

    Without tied word embeddings, `transformers` 5 stores that bias as "decoder.bias" and leaves an unused "bias" beside it.
    """
    bias_names = {name: name.removesuffix("decoder.bias") + "bias" for name in tensors if name.endswith("decoder.bias")}
    return {**tensors, **{bias: tensors[name] for name, bias in bias_names.items() if bias in tensors}}


def head_kind(names: Iterable[str], table: Table, architectures: Iterable[str] = ()) -> str | None:
    """Return the kind of a checkpoint's head, one of `KINDS`, or None where it has none that is known.

    This is the kind that `architectures` names, if the tensors `names` of that head are there or it needs none, else the kind of the
    tensors that are there.
    """
    short = [canonical(name, table) for name in names]
    there = [kind for kind, rows in table.heads.items() if any(_locate(name, rows)[0] for name in short)]
    declared = [kind for kind, ending in KINDS.items() for name in architectures or () if name.endswith(ending) and kind in table.heads]
    needs_none = [kind for kind in declared if all(row.flax == ("head/words",) for row in table.heads[kind])]
    return next(iter([*(kind for kind in declared if kind in there), *needs_none, *there]), None)


def number_of(name: str, pattern: str) -> str | None:
    """Return the layer's number that the `*` of `pattern` matches in `name`, "" without a `*`; None if `name` does not match."""
    match = re.fullmatch(re.escape(pattern).replace(r"\*", r"(\d+)"), name)
    return "".join(match.groups()) if match else None


def rename(name: str, pattern: str, other: str) -> str | None:
    """Return `other` with the number that the `*` of `pattern` matches in `name`; None if `name` does not match."""
    number = number_of(name, pattern)
    return None if number is None else other.replace("*", number)


def shortened(names: list[str], most: int = 4) -> str:
    """Return the names for an error message: the first `most`, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def canonical(name: str, table: Table) -> str:
    """Return a PyTorch name as it stands in the rows: without the prefix, with the current ending."""
    name = name.removeprefix(table.prefix)
    for old, new in table.aliases:
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return name


def _locate(name: str, rows: Iterable[Row]) -> tuple[Row | None, str]:
    """Return the row of a canonical PyTorch name, or None, and the number of the layer, "" where there is none."""
    for row in rows:
        if (number := number_of(name, row.torch)) is not None:
            return row, number
    return None, ""


def _filled(pattern: str, number: str, last: int) -> str:
    return pattern.replace("*", number).replace("$", str(last))


def _numbers(name: str, rows: Iterable[Row]) -> list[str]:
    row, number = _locate(name, rows)
    return [number] if row and number else []
