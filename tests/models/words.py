"""Batches of random word ids for tests of the LSTM and CNN encoders."""

import numpy as np

LENGTHS = (4, 1, 7)  # of the examples in one packed row, followed by two padding tokens
IDS = np.random.RandomState(0).randint(3, 20, sum(LENGTHS))


def batch(rows: list[list[np.ndarray]], length: int) -> dict[str, np.ndarray]:
    """Return the batch of rows of examples, each an array of word ids. Examples are numbered in order."""
    names, number = ("tokens", "positions", "segments", "types"), 0
    result = {name: np.zeros((len(rows), length), np.int32) for name in names}
    result |= {name: np.zeros((len(rows), max(map(len, rows))), np.int32) for name in ("example_starts", "examples")}
    for r, row in enumerate(rows):
        start = 0
        for i, ids in enumerate(row):
            here = slice(start, start + len(ids))
            result["tokens"][r, here], result["positions"][r, here], result["segments"][r, here] = ids, np.arange(len(ids)), i + 1
            result["example_starts"][r, i], result["examples"][r, i] = start, number
            start, number = start + len(ids), number + 1
    return result


def examples(ids: np.ndarray = IDS) -> list[np.ndarray]:
    """Return the ids split into three examples."""
    return np.split(ids, np.cumsum(LENGTHS)[:-1])


def packed(ids: np.ndarray = IDS) -> dict[str, np.ndarray]:
    """Return a batch with the three examples packed in one row."""
    return batch([examples(ids)], 14)


def padded(ids: np.ndarray = IDS) -> dict[str, np.ndarray]:
    """Return a batch with one example a row."""
    return batch([[example] for example in examples(ids)], 9)


def by_example(states: np.ndarray, rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    """Return the states [n, D] of each example, in order, from states [B, L, D]."""
    result = []
    for row, segments in zip(np.asarray(states), rows["segments"], strict=True):
        result += [row[segments == number] for number in range(1, segments.max() + 1)]
    return result
