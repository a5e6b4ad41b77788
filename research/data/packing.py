"""Assignment of examples to batches and rows, and the choice of a static shape that all batches fit."""

import dataclasses
import heapq

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shape:
    """The shape of a batch: rows, tokens per row (`length`) and places for examples per row."""

    rows: int
    length: int
    places: int


def deal_evenly(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return batches of `batch_size` examples (int64 indices) with almost equal sums of lengths. The rest forms a random smaller batch.

    Examples are shuffled, sorted by length and cut into `batch_size` strata. From the longest stratum to the shortest, each batch gets
    one example of the stratum, and the batch with most tokens gets the shortest. Ties are broken at random.
    """
    order = rng.permutation(len(lengths))
    count = len(lengths) // batch_size
    rest, order = order[count * batch_size :], order[: count * batch_size]
    order = order[np.argsort(-lengths[order], kind="stable")]
    tokens_per_batch, strata = np.zeros(count, np.int64), []
    for stratum in order.reshape(batch_size, count):
        emptiest_first = np.lexsort((rng.random(count), tokens_per_batch))
        dealt = np.empty_like(stratum)
        dealt[emptiest_first] = stratum
        tokens_per_batch += lengths[dealt]
        strata.append(dealt)
    batches = list(np.stack(strata, axis=1)[rng.permutation(count)]) if count else []
    return [*batches, rest] if len(rest) else batches


def deal_by_length(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return batches of examples of similar length, in random order. Examples are sorted within random blocks of 50 batches."""
    order, block = rng.permutation(len(lengths)), 50 * batch_size
    blocks = [order[i : i + block] for i in range(0, len(order), block)]
    order = np.concatenate([b[np.argsort(-lengths[b], kind="stable")] for b in blocks])
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def assign(lengths: np.ndarray, shape: Shape) -> list[list[int]] | None:
    """Return the examples of each row, or None if they do not fit the shape."""
    if len(lengths) > shape.rows * shape.places:
        return None
    rows, longest = spread(lengths, shape)
    return rows if longest <= shape.length else None


def spread(lengths: np.ndarray, shape: Shape) -> tuple[list[list[int]], int]:
    """Return the examples of each row and the length of the longest row, which may exceed the length of `shape`.

    Each example, longest first, goes to the row with fewest tokens and a place left (Graham 1969). While a row is too long, it
    exchanges an example with one of the shortest rows such that the two rows become as equal as possible.
    """
    heap = [(0, row) for row in range(shape.rows)]
    rows: list[list[int]] = [[] for _ in heap]
    longest_first, sizes = np.argsort(-lengths, kind="stable").tolist(), lengths.tolist()  # lists: single elements of numpy arrays are slow
    for k in longest_first:
        total, row = heapq.heappop(heap)
        rows[row].append(k)
        if len(rows[row]) < shape.places:
            heapq.heappush(heap, (total + sizes[k], row))
    return rows, _even_out(rows, sizes, shape.length)


def _even_out(rows: list[list[int]], lengths: list[int], limit: int) -> int:
    """Exchange examples between rows until none is longer than `limit`, or no exchange helps; return the length of the longest row."""
    tokens_per_row = [sum(lengths[k] for k in row) for row in rows]
    while max(tokens_per_row) > limit:
        full = max(range(len(rows)), key=tokens_per_row.__getitem__)
        for other in sorted(range(len(rows)), key=tokens_per_row.__getitem__):
            gap = tokens_per_row[full] - tokens_per_row[other]
            exchanges = [(abs(2 * (lengths[a] - lengths[b]) - gap), a, b) for a in rows[full] for b in rows[other]]
            off, a, b = min(exchanges, default=(gap, 0, 0))
            if off < gap:
                break
        else:
            break
        rows[full][rows[full].index(a)], rows[other][rows[other].index(b)] = b, a
        moved = lengths[a] - lengths[b]
        tokens_per_row[full], tokens_per_row[other] = tokens_per_row[full] - moved, tokens_per_row[other] + moved
    return max(tokens_per_row)


def packed_shape(batches: list[np.ndarray], batch_size: int, multiple: int) -> Shape:
    """Return the cheapest shape that all these batches (given by the lengths of their examples) fit: few padding tokens, short rows.

    In a row of L tokens, attention adds about L / ATTENTION to the other work of a token. Shapes are tried in order of a lower bound
    of their cost; shapes whose bound is not below the best cost so far are skipped.
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
            best = min(best, _fitted(batches, shape, best[0]), key=lambda pair: pair[0])
    return best[1]


ATTENTION = 6 * 384  # from FLOPs with 384 features (MiniLM); long rows cost wider models relatively less


def _cost(rows: int, length: int) -> float:
    return rows * length * (1 + length / ATTENTION)


def _fitted(batches: list[np.ndarray], shape: Shape, most: float) -> tuple[float, Shape]:
    """Return the cost of `shape` with rows long enough for all batches, and that shape. The cost is infinite from `most` on."""
    for lengths in batches:
        _, longest = spread(lengths, shape)
        shape = dataclasses.replace(shape, length=max(shape.length, _up(longest, 8)))
        if _cost(shape.rows, shape.length) >= most:
            return np.inf, shape
    return _cost(shape.rows, shape.length), shape


def _row_lengths(lengths: np.ndarray, buckets: int) -> list[int]:
    edges = np.quantile(lengths, np.arange(1, buckets + 1) / buckets, method="higher")
    return sorted({_up(int(edge), 8) for edge in edges})


def _up(x: int, multiple: int) -> int:
    return -(-x // multiple) * multiple
