"""Data augmentation: copies of training texts in which a few words are changed (Wei & Zou 2019, "EDA")."""

import random
from collections.abc import Callable

from research.data.examples import Examples
from research.errors import InputError, nearest


def add(examples: Examples, operation: str, rate: float, copies: int, seed: int) -> Examples:
    """Return `examples` followed by `copies` copies of each, whose whitespace-separated words are changed by an operation of `OPERATIONS`.

    A copy has the label of its example; "~1", "~2", ... is added to the id. A copy depends only on the operation, the rate, the seed,
    the example's id and text, and the number of the copy. The texts of a pair are changed one by one. A text of one word is not changed.
    Raise InputError for an unknown operation, and if the operation changes no text at all.
    """
    if operation not in OPERATIONS:
        raise InputError(f"data.augment {operation!r}: {nearest(operation, OPERATIONS)}; leave it empty for none")
    result = examples
    for copy in range(1, copies + 1):
        texts = tuple(
            _changed(texts, OPERATIONS[operation], rate, f"{operation} {seed} {name} {copy}")
            for name, texts in zip(examples.ids, examples.texts, strict=True)
        )
        ids = tuple(f"{name}~{copy}" for name in examples.ids)
        result = Examples(result.ids + ids, result.texts + texts, result.labels + examples.labels)
    if set(result.texts) == set(examples.texts):
        raise InputError(f"data.augment={operation} with data.augment_rate={rate:g} changes none of {len(examples)} training texts")
    return result


def _changed(texts: tuple[str, ...], operation: Callable, rate: float, seed: str) -> tuple[str, ...]:
    rng = random.Random(seed)
    return tuple(" ".join(operation(text.split(), rate, rng)) for text in texts)


def deletion(words: list[str], rate: float, rng: random.Random) -> list[str]:
    """Delete each word with probability `rate`, but keep at least one word."""
    draws = [rng.random() for _ in words]
    return [word for word, draw in zip(words, draws, strict=True) if draw >= rate] or [words[draws.index(max(draws))]]


def swap(words: list[str], rate: float, rng: random.Random) -> list[str]:
    """Exchange two random words; repeat for a fraction `rate` of the number of words, at least once."""
    words = list(words)
    for _ in range(max(1, round(rate * len(words))) if len(words) > 1 else 0):
        i, j = rng.sample(range(len(words)), 2)
        words[i], words[j] = words[j], words[i]
    return words


def crop(words: list[str], rate: float, rng: random.Random) -> list[str]:
    """Remove a fraction `rate` of the words, and at least one, from the two ends; keep at least one word."""
    count = min(max(1, round(rate * len(words))), len(words) - 1)
    begin = rng.randint(0, count)
    return words[begin : len(words) - count + begin]


OPERATIONS: dict[str, Callable[[list[str], float, random.Random], list[str]]] = {"deletion": deletion, "swap": swap, "crop": crop}
