"""Functions that cut, limit and check splits of examples."""

import random
from collections import defaultdict
from collections.abc import Sequence

from research.data.examples import Examples, Raw
from research.data.sources import files
from research.errors import InputError, nearest


def stratified_order(labels: Sequence[str], seed: str) -> list[int]:
    """Return a seeded permutation of the rows. Each prefix has the label proportions of all rows, within one row per label."""
    rng = random.Random(seed)
    by_label = defaultdict(list)
    for row, label in enumerate(labels):
        by_label[label].append(row)
    places = []
    for label in sorted(by_label):
        members = by_label[label]
        rng.shuffle(members)
        places += [((k + 0.5) / len(members), rng.random(), row) for k, row in enumerate(members)]
    return [row for _, _, row in sorted(places)]


def _check(raw: Raw, split: str, labels: tuple[str, ...]) -> None:
    """Raise InputError if a split is empty, a text is not valid, or a label is not a class."""
    examples, known = raw.splits[split], frozenset(labels)
    if not len(examples):
        raise InputError(f"{raw.source}: the {split} split is empty")
    for row, (texts, label) in enumerate(zip(examples.texts, examples.labels, strict=True)):
        place = raw.origin(split, row)
        for text in texts:
            files.check_text(text, place)
        if not label or label not in known:
            raise InputError(f"{place}: label {label!r} is not a class; {nearest(label, known)}")


def _cut_dev(splits: dict[str, Examples], fraction: float, seed: int) -> dict[str, Examples]:
    """Return the splits with `fraction` of train moved to dev; both stay in the order of the source."""
    train = splits["train"]
    size = round(fraction * len(train))
    if not 0 < size < len(train):
        raise InputError(
            f"data.dev_fraction {fraction} of {len(train)} training examples leaves {size} for dev; give a fraction between 0 and 1"
        )
    order = stratified_order(train.labels, f"dev {seed}")
    return {**splits, "train": train.take(sorted(order[size:])), "dev": train.take(sorted(order[:size]))}


def _limit(examples: Examples, split: str, size: int, seed: int) -> Examples:
    """Return `size` examples, drawn by `seed` in proportion to the labels; 0 is all."""
    if size == 0:
        return examples
    if not 0 < size <= len(examples):
        field = "train_examples" if split == "train" else "eval_examples"
        raise InputError(f"data.{field}={size}, but the {split} split has {len(examples)} examples; 0 is all of them")
    return examples.take(sorted(stratified_order(examples.labels, f"{split} {seed}")[:size]))
