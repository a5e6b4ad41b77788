"""From encoded examples to batches of one static shape: which examples, in which rows.

A batch is always `batch_size` examples, however they are laid out, so packing changes neither the learning rate that suits
nor the gradient. Which examples meet is a function of (seed, epoch) and the lengths: batches are dealt so that all hold
almost the same number of tokens, and then fill the same rows with little padding.

Letters: R rows, L tokens of a row, E places for examples in a row, n examples.
"""

import copy
import dataclasses
import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from research.data.encode import Tokens
from research.errors import InputError, nearest

LAYOUTS = ("packed", "bucketed", "padded")
Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Shape:
    """R rows of L tokens with places for E examples each."""

    rows: int
    length: int
    places: int


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
        batch |= {name: np.zeros((R, E), np.int32) for name in ("anchors", "examples")}
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
        batch["anchors"][row, place], batch["examples"][row, place] = at, example
        batch["labels"][row, place], batch["weights"][row, place] = self.labels[example], 1.0
        return batch


def deal_evenly(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of `batch_size` whose sums of lengths are almost equal; the remainder, if any, is a random smaller batch.

    Examples are shuffled, sorted by length and cut into `batch_size` strata; going from long to short, each batch gets one
    of a stratum, the fullest batch the shortest. Equal lengths are interchangeable, so chance decides who meets whom.
    """
    order = rng.permutation(len(lengths))
    count = len(lengths) // batch_size
    rest, order = order[count * batch_size :], order[: count * batch_size]
    order = order[np.argsort(-lengths[order], kind="stable")]
    totals, strata = np.zeros(count, np.int64), []
    for stratum in order.reshape(batch_size, count):
        emptiest_first = np.lexsort((rng.random(count), totals))
        dealt = np.empty_like(stratum)
        dealt[emptiest_first] = stratum
        totals += lengths[dealt]
        strata.append(dealt)
    batches = list(np.stack(strata, axis=1)[rng.permutation(count)]) if count else []
    return [*batches, rest] if len(rest) else batches


def deal_by_length(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Batches of similar lengths, in random order: sorted within random blocks of 50 batches."""
    order, block = rng.permutation(len(lengths)), 50 * batch_size
    blocks = [order[i : i + block] for i in range(0, len(order), block)]
    order = np.concatenate([b[np.argsort(-lengths[b], kind="stable")] for b in blocks])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def assign(lengths: np.ndarray, shape: Shape) -> list[list[int]] | None:
    """Return which examples go to which row, or None where they do not fit."""
    if len(lengths) > shape.rows * shape.places:
        return None
    rows, longest = spread(lengths, shape)
    return rows if longest <= shape.length else None


def spread(lengths: np.ndarray, shape: Shape) -> tuple[list[list[int]], int]:
    """Return which examples go to which row, and how long the longest row is, which may be more than the shape's.

    Longest first, each to the emptiest row with a place left (Graham 1969); then, while a row is too full, the exchange
    with the emptiest rows that evens the two best.
    """
    heap = [(0, row) for row in range(shape.rows)]
    rows: list[list[int]] = [[] for _ in heap]
    longest_first, each = np.argsort(-lengths, kind="stable").tolist(), lengths.tolist()  # one by one, numpy's numbers are slow
    for k in longest_first:
        total, row = heapq.heappop(heap)
        rows[row].append(k)
        if len(rows[row]) < shape.places:
            heapq.heappush(heap, (total + each[k], row))
    return rows, _even_out(rows, each, shape.length)


def _even_out(rows: list[list[int]], lengths: list[int], limit: int) -> int:
    """Exchange examples between rows until none is longer than `limit`, or no exchange helps; return the length of the longest row."""
    totals = [sum(lengths[k] for k in row) for row in rows]
    while max(totals) > limit:
        full = max(range(len(rows)), key=totals.__getitem__)
        for other in sorted(range(len(rows)), key=totals.__getitem__):
            gap = totals[full] - totals[other]
            exchanges = [(abs(2 * (lengths[a] - lengths[b]) - gap), a, b) for a in rows[full] for b in rows[other]]
            off, a, b = min(exchanges, default=(gap, 0, 0))
            if off < gap:
                break
        else:
            break
        rows[full][rows[full].index(a)], rows[other][rows[other].index(b)] = b, a
        moved = lengths[a] - lengths[b]
        totals[full], totals[other] = totals[full] - moved, totals[other] + moved
    return max(totals)


def packed_shape(batches: list[np.ndarray], batch_size: int, multiple: int) -> Shape:
    """Return the shape that holds each of these batches (given by their lengths) and costs least: padding against long rows.

    Attention to a row of L tokens adds about L / ATTENTION of a token's other work. The shapes are tried in the order of what they
    would cost at the least, and those that could not be better are left out.
    """
    total = max(b.sum() for b in batches)
    longest = max(b.max() for b in batches)
    candidates = []
    for rows in range(multiple, _up(batch_size, multiple) + 1, multiple):
        floor = _up(int(max(longest, -(-total // rows))), 8)
        if rows == multiple or floor >= 32:
            candidates.append((_cost(rows, floor), Shape(rows, floor, min(batch_size, 2 * -(-batch_size // rows)))))
    best = np.inf, candidates[0][1]
    for least, shape in sorted(candidates, key=lambda candidate: candidate[0]):
        if least < best[0]:
            best = min(best, _fitted(batches, shape, best[0]), key=lambda found: found[0])
    return best[1]


ATTENTION = 6 * 384  # in FLOPs, for 384 features (MiniLM); wider models mind long rows less


def _cost(rows: int, length: int) -> float:
    return rows * length * (1 + length / ATTENTION)


def _fitted(batches: list[np.ndarray], shape: Shape, most: float) -> tuple[float, Shape]:
    """Return the cost of `shape`, made as long as all batches need, and the shape; infinity where it would cost `most` or more."""
    for lengths in batches:
        _, longest = spread(lengths, shape)
        shape = dataclasses.replace(shape, length=max(shape.length, _up(longest, 8)))
        if _cost(shape.rows, shape.length) >= most:
            return np.inf, shape
    return _cost(shape.rows, shape.length), shape


def _row_lengths(lengths: np.ndarray, buckets: int) -> list[int]:
    edges = np.quantile(lengths, np.arange(1, buckets + 1) / buckets, method="higher")
    return sorted({_up(int(edge), 8) for edge in edges})


def _within(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    """0, 1, ..., size - 1 for each of the sizes, end to end."""
    return np.arange(np.sum(sizes)) - np.repeat(np.cumsum(sizes) - sizes, sizes)


def _up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple
