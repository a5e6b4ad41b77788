"""Batches of static shape from encoded examples.

A batch always has `batch_size` examples, in any layout, so packing changes neither the best learning rate nor the gradient.
The composition of the batches depends only on (seed, epoch) and the lengths. All batches have almost the same number of
tokens, so that they fit one shape with little padding.

Letters: R rows, L tokens per row, E places for examples in a row, n examples.
"""

import copy
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from research.data.encode import Tokens
from research.data.packing import Shape, _row_lengths, _up, assign, deal_by_length, deal_evenly, packed_shape
from research.errors import InputError, nearest
from research.tasks.base import EXAMPLE, TOKEN, WORD, Column

LAYOUTS = ("packed", "bucketed", "padded")
Batch = dict[str, np.ndarray]
"""A batch: its keys are `PER_TOKEN` (int32 [R, L]), `PER_EXAMPLE` (int32 [R, E]), `weights` (float32 [R, E]) and the columns of the task.

`tokens` are the token ids and `types` their types. `positions` count from the first position of each example. `segments` number the
examples of a row from 1, and are 0 in padding. `example_starts` are the indices of the first tokens, and `examples` the numbers of the
examples in their split. `weights` are 1 for an example and 0 for an empty place.
"""
PER_TOKEN, PER_EXAMPLE = ("tokens", "positions", "segments", "types"), ("example_starts", "examples")


def empty(shape: Shape, columns: Mapping[str, Column]) -> Batch:
    """Return a batch of zeros with the columns of a task."""
    R, L, E = shape.rows, shape.length, shape.places
    batch = {name: np.zeros((R, L), np.int32) for name in PER_TOKEN} | {name: np.zeros((R, E), np.int32) for name in PER_EXAMPLE}
    batch["weights"] = np.zeros((R, E), np.float32)
    for name, (per, values) in columns.items():
        batch[name] = np.zeros((R, E if per == EXAMPLE else L, *values.shape[1:]), values.dtype)
    return batch


class Batches:
    """The batches of one split. R is a multiple of `multiple` (devices x accumulation steps).

    The layout "packed" puts several examples into a row. "bucketed" puts one example into a row; the examples of a batch have similar
    lengths, and there are at most four row lengths. "padded" puts one example into a row of one fixed length, and its batches have the
    same examples as with "packed". `columns` are values of the examples (one row for each of n) or of their tokens (one row for each of
    T) that batches hold too. Raises InputError for another layout.
    """

    def __init__(
        self,
        tokens: Tokens,
        columns: Mapping[str, Column],
        batch_size: int,
        *,
        seed: int,
        layout: str = "packed",
        multiple: int = 1,
    ):
        if layout not in LAYOUTS:
            raise InputError(f"packing {layout!r}: {nearest(layout, LAYOUTS)}")
        self.tokens, self.columns, self.seed, self.layout = tokens, dict(columns), seed, layout
        self.batch_size, self.multiple = min(batch_size, len(tokens)), multiple
        first = self._deal(np.random.default_rng((0, 0)))  # not by `seed`: runs that differ only in it share programs
        if layout == "packed":
            self.shapes = [packed_shape([self.tokens.lengths[b] for b in first], self.batch_size, multiple)]
        else:
            rows = _up(self.batch_size, multiple)
            self.shapes = [Shape(rows, length, 1) for length in _row_lengths(tokens.lengths, 4 if layout == "bucketed" else 1)]

    @property
    def steps(self) -> int:
        """Return the number of batches in an epoch. One batch is smaller if `batch_size` does not divide the number of examples."""
        return -(-len(self.tokens) // self.batch_size)

    def compose(self, epoch: int) -> list[np.ndarray]:
        """Return the examples (int64 indices) of each batch of an epoch. Every example occurs once."""
        return self._deal(np.random.default_rng((self.seed, epoch)))

    def _deal(self, rng: np.random.Generator) -> list[np.ndarray]:
        deal = deal_by_length if self.layout == "bucketed" else deal_evenly
        return deal(self.tokens.lengths, self.batch_size, rng)

    def reseeded(self, seed: int) -> "Batches":
        """Return batches of the same examples in the same shapes, composed with another seed."""
        other = copy.copy(self)
        other.seed, other.shapes, other.columns = seed, list(self.shapes), dict(self.columns)
        return other

    def with_column(self, name: str, column: Column) -> "Batches":
        """Return batches of the same examples that also have a column `name`."""
        other = self.reseeded(self.seed)
        other.columns[name] = column
        return other

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch in order, from index `start`."""
        for members in self.compose(epoch)[start:]:
            yield self.lay_out(members)

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of all epochs without end, from batch `start`, counted over all epochs."""
        epoch, skip = divmod(start, self.steps)
        while True:
            yield from self.epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def lay_out(self, members: np.ndarray) -> Batch:
        """Return the batch of the examples `members` (int64 indices) in the first of `shapes` that they fit."""
        lengths = self.tokens.lengths[members]
        for shape in self.shapes:
            rows = assign(lengths, shape)
            if rows is not None:
                return self._fill(members, rows, shape)
        # Rare: the shapes come from one composition, and another can need more rows. The added shape serves later batches too.
        last = self.shapes[-1]
        self.shapes.append(dataclasses.replace(last, rows=last.rows + _up(max(1, last.rows // 8), self.multiple)))
        return self.lay_out(members)

    def _fill(self, members: np.ndarray, rows: list[list[int]], shape: Shape) -> Batch:
        batch = empty(shape, self.columns)
        # Per example, row by row: `row`, `place` in the row and first token `at`. Per token: index of its example, and `offset` in it.
        sizes = [len(row) for row in rows]
        row, place = np.repeat(np.arange(shape.rows), sizes), _within(sizes)
        example = members[np.concatenate(rows).astype(np.int64)]
        lengths, total = self.tokens.lengths[example], np.zeros(shape.rows, np.int64)
        np.add.at(total, row, lengths)
        at = _within(total)[np.cumsum(lengths) - lengths]
        of_example, offset = np.repeat(np.arange(len(example)), lengths), _within(lengths)
        target, source = (row[of_example], at[of_example] + offset), self.tokens.offsets[example][of_example] + offset
        batch["tokens"][target], batch["types"][target] = self.tokens.ids[source], self.tokens.types[source]
        batch["positions"][target], batch["segments"][target] = self.tokens.first_position + offset, place[of_example] + 1
        batch["example_starts"][row, place], batch["examples"][row, place] = at, example
        batch["weights"][row, place] = 1.0
        for name, (per, values) in self.columns.items():
            batch[name][target if per == TOKEN else (row, place)] = values[source if per == TOKEN else example]
        return batch

    def size(self, per: str) -> int:
        """Return the number of examples, tokens or words of the split."""
        if per == WORD:
            return int(self.tokens.word_offsets[-1])
        return len(self.tokens) if per == EXAMPLE else len(self.tokens.ids)

    def members(self, batch: Batch, per: str) -> tuple[np.ndarray, np.ndarray]:
        """Return which places of a batch hold an example (or a token, or the first token of a word), bool [R, E] (or [R, L]), and the
        numbers of these examples (or tokens, or words) in the split: int64 [members]."""
        if per == EXAMPLE:
            occupied = batch["weights"] > 0
            return occupied, batch["examples"][occupied]
        occupied = batch["segments"] > 0
        rows, at = np.nonzero(occupied)
        place = batch["segments"][occupied] - 1
        tokens = self.tokens.offsets[batch["examples"][rows, place]] + at - batch["example_starts"][rows, place]
        if per == TOKEN:
            return occupied, tokens
        words = self.tokens.words[tokens]
        occupied[rows, at] = words >= 0
        return occupied, words[words >= 0]


def _within(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return 0, 1, ..., size - 1 for each of the sizes, concatenated."""
    return np.arange(np.sum(sizes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
