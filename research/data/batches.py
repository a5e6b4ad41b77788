"""From encoded examples to batches of one static shape: which examples, in which rows.

A batch is always `batch_size` examples, however they are laid out, so packing changes neither the learning rate that suits
nor the gradient. Which examples meet is a function of (seed, epoch) and the lengths: batches are dealt so that all hold
almost the same number of tokens, and then fill the same rows with little padding.

Letters: R rows, L tokens of a row, E places for examples in a row, n examples.
"""

import copy
import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from research.data.encode import Tokens
from research.data.packing import Shape, _row_lengths, _up, assign, deal_by_length, deal_evenly, packed_shape
from research.errors import InputError, nearest

LAYOUTS = ("packed", "bucketed", "padded")
Batch = dict[str, np.ndarray]


class Batches:
    """The batches of one split. `multiple`: R is a multiple of it (devices x accumulation).

    `layout`: "packed" puts several examples into a row; "bucketed" one a row, batches of similar length in at most four row
    lengths; "padded" one a row in one length, with the same examples in a batch as "packed".
    Where the attribute `hidden` [T, D] is set, a row for each token, it goes along as `hidden` [R, L, D].
    Raises InputError for another layout.
    """

    def __init__(self, tokens: Tokens, labels: np.ndarray, batch_size: int, *, seed: int, layout: str = "packed", multiple: int = 1):
        if layout not in LAYOUTS:
            raise InputError(f"packing {layout!r}: {nearest(layout, LAYOUTS)}")
        self.tokens, self.labels, self.seed, self.layout = tokens, labels, seed, layout
        self.hidden: np.ndarray | None = None
        self.batch_size, self.multiple = min(batch_size, len(tokens)), multiple
        first = self._deal(np.random.default_rng((0, 0)))  # not by the seed: runs that differ in it alone share their programs
        if layout == "packed":
            self.shapes = [packed_shape([self.tokens.lengths[b] for b in first], self.batch_size, multiple)]
        else:
            rows = _up(self.batch_size, multiple)
            self.shapes = [Shape(rows, length, 1) for length in _row_lengths(tokens.lengths, 4 if layout == "bucketed" else 1)]

    @property
    def steps(self) -> int:
        """Batches of an epoch; the last one is smaller where the examples do not divide."""
        return -(-len(self.tokens) // self.batch_size)

    def compose(self, epoch: int) -> list[np.ndarray]:
        """The examples (int64 indices) of each batch of an epoch: every example once."""
        return self._deal(np.random.default_rng((self.seed, epoch)))

    def _deal(self, rng: np.random.Generator) -> list[np.ndarray]:
        deal = deal_by_length if self.layout == "bucketed" else deal_evenly
        return deal(self.tokens.lengths, self.batch_size, rng)

    def reseeded(self, seed: int) -> "Batches":
        """The same examples in the same shapes, dealt by another seed."""
        other = copy.copy(self)
        other.seed, other.shapes = seed, list(self.shapes)
        return other

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch in order, from the `start`-th."""
        for members in self.compose(epoch)[start:]:
            yield self.lay_out(members)

    def stream(self, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch after epoch without end, from the `start`-th batch of all."""
        epoch, skip = divmod(start, self.steps)
        while True:
            yield from self.epoch(epoch, skip)
            epoch, skip = epoch + 1, 0

    def lay_out(self, members: np.ndarray) -> Batch:
        """The batch of the examples `members` (int64 indices), in the smallest of the shapes that holds them."""
        lengths = self.tokens.lengths[members]
        for shape in self.shapes:
            rows = assign(lengths, shape)
            if rows is not None:
                return self._fill(members, rows, shape)
        # Rare: these lengths do not fit as the first epoch's did. A larger shape serves this batch and its like.
        last = self.shapes[-1]
        self.shapes.append(dataclasses.replace(last, rows=last.rows + _up(max(1, last.rows // 8), self.multiple)))
        return self.lay_out(members)

    def _fill(self, members: np.ndarray, rows: list[list[int]], shape: Shape) -> Batch:
        R, L, E = shape.rows, shape.length, shape.places
        batch = {name: np.zeros((R, L), np.int32) for name in ("tokens", "positions", "segments", "types")}
        batch |= {name: np.zeros((R, E), np.int32) for name in ("example_starts", "examples")}
        batch["labels"] = np.zeros((R, E, *self.labels.shape[1:]), self.labels.dtype)
        batch["weights"] = np.zeros((R, E), np.float32)
        # Of each example, row by row: its row, its place there, and where in the row it begins. Of each token: whose it is, and which.
        inside = [len(row) for row in rows]
        row, place = np.repeat(np.arange(R), inside), _within(inside)
        example = members[np.concatenate(rows).astype(np.int64)]
        lengths, total = self.tokens.lengths[example], np.zeros(R, np.int64)
        np.add.at(total, row, lengths)
        at = _within(total)[np.cumsum(lengths) - lengths]
        whose, which = np.repeat(np.arange(len(example)), lengths), _within(lengths)
        here, there = (row[whose], at[whose] + which), self.tokens.offsets[example][whose] + which
        batch["tokens"][here], batch["types"][here] = self.tokens.ids[there], self.tokens.types[there]
        batch["positions"][here], batch["segments"][here] = self.tokens.first_position + which, place[whose] + 1
        if self.hidden is not None:
            source = np.zeros((R, L), np.int64)
            source[here] = there
            batch["hidden"] = np.take(np.asarray(self.hidden), source, axis=0)  # one pass over it: the largest part of a batch by far
            batch["hidden"][batch["segments"] == 0] = 0
        batch["example_starts"][row, place], batch["examples"][row, place] = at, example
        batch["labels"][row, place], batch["weights"][row, place] = self.labels[example], 1.0
        return batch


def _within(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """0, 1, ..., size - 1 for each of the sizes, end to end."""
    return np.arange(np.sum(sizes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
