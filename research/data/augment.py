"""More training texts out of those that there are: copies whose words are changed a little (Wei & Zou 2019, "EDA")."""

import random
from collections.abc import Callable

from research.data.examples import Examples
from research.errors import InputError, nearest


def add(examples: Examples, operation: str, rate: float, copies: int, seed: int) -> Examples:
    """`examples`, and after them `copies` of each with an operation of `OPERATIONS` done to its words (apart by whitespace).

    A copy keeps the label; its id is that of its example with "~1", "~2", ... It is a function of the operation, the rate, the seed, the
    example's id and the copy's number, so whatever other examples there are; texts of a pair are changed one by one. A text of a
    single word stays as it is. Raises InputError for another operation, and where it changes no text at all.
    """
    if operation not in OPERATIONS:
        raise InputError(f"data.augment {operation!r}: {nearest(operation, OPERATIONS)}; leave it empty for none")
    found = examples
    for copy in range(1, copies + 1):
        texts = tuple(
            _changed(texts, OPERATIONS[operation], rate, f"{operation} {seed} {name} {copy}")
            for name, texts in zip(examples.ids, examples.texts, strict=True)
        )
        ids = tuple(f"{name}~{copy}" for name in examples.ids)
        found = Examples(found.ids + ids, found.texts + texts, found.labels + examples.labels)
    if set(found.texts) == set(examples.texts):
        raise InputError(f"data.augment={operation} with data.augment_rate={rate:g} changes none of {len(examples)} training texts")
    return found


def _changed(texts: tuple[str, ...], operation: Callable, rate: float, chance: str) -> tuple[str, ...]:
    rng = random.Random(chance)
    return tuple(" ".join(operation(text.split(), rate, rng)) for text in texts)


def deletion(words: list[str], rate: float, rng: random.Random) -> list[str]:
    """Each word goes with probability `rate`; where all would go, one stays."""
    draws = [rng.random() for _ in words]
    return [word for word, draw in zip(words, draws, strict=True) if draw >= rate] or [words[draws.index(max(draws))]]


def swap(words: list[str], rate: float, rng: random.Random) -> list[str]:
    """Two words change places, as often as `rate` of the words, and at least once."""
    words = list(words)
    for _ in range(max(1, round(rate * len(words))) if len(words) > 1 else 0):
        i, j = rng.sample(range(len(words)), 2)
        words[i], words[j] = words[j], words[i]
    return words


def crop(words: list[str], rate: float, rng: random.Random) -> list[str]:
    """What is left when `rate` of the words, and at least one, goes from the two ends."""
    gone = min(max(1, round(rate * len(words))), len(words) - 1)
    begin = rng.randint(0, gone)
    return words[begin : len(words) - gone + begin]


OPERATIONS: dict[str, Callable[[list[str], float, random.Random], list[str]]] = {"deletion": deletion, "swap": swap, "crop": crop}
