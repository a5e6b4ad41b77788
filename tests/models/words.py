"""Rows of word ids for tests of encoders that read nothing else."""

import numpy as np

LENGTHS = (4, 1, 7)  # of the examples in one packed row, with two places of padding behind
IDS = np.random.RandomState(0).randint(3, 20, sum(LENGTHS))


def batch(rows: list[list[np.ndarray]], length: int) -> dict[str, np.ndarray]:
    """The batch of `rows` of examples, each the ids of its words. Examples are numbered in order."""
    names, number = ("tokens", "positions", "segments", "types"), 0
    found = {name: np.zeros((len(rows), length), np.int32) for name in names}
    found |= {name: np.zeros((len(rows), max(map(len, rows))), np.int32) for name in ("example_starts", "examples")}
    for r, row in enumerate(rows):
        at = 0
        for place, ids in enumerate(row):
            here = slice(at, at + len(ids))
            found["tokens"][r, here], found["positions"][r, here], found["segments"][r, here] = ids, np.arange(len(ids)), place + 1
            found["example_starts"][r, place], found["examples"][r, place] = at, number
            at, number = at + len(ids), number + 1
    return found


def examples(ids: np.ndarray = IDS) -> list[np.ndarray]:
    """The ids cut into three examples."""
    return np.split(ids, np.cumsum(LENGTHS)[:-1])


def packed(ids: np.ndarray = IDS) -> dict[str, np.ndarray]:
    """All three in one row."""
    return batch([examples(ids)], 14)


def padded(ids: np.ndarray = IDS) -> dict[str, np.ndarray]:
    """Each in a row of its own."""
    return batch([[example] for example in examples(ids)], 9)


def by_example(states: np.ndarray, rows: dict[str, np.ndarray]) -> list[np.ndarray]:
    """[B, L, D] -> the states [n, D] of each example, in order."""
    found = []
    for row, segments in zip(np.asarray(states), rows["segments"], strict=True):
        found += [row[segments == number] for number in range(1, segments.max() + 1)]
    return found
