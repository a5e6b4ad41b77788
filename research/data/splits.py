"""Functions that cut, limit and check splits of examples."""

import random
from collections import defaultdict
from collections.abc import Sequence

from research.data.examples import Examples, Raw
from research.data.sources import files
from research.errors import InputError
from research.tasks.base import Task


def stratified_order(strata: Sequence[str], seed: str) -> list[int]:
    """Return a seeded permutation of the rows. Each prefix has the proportions of the strata of all rows, within one row per stratum."""
    rng = random.Random(seed)
    by_stratum = defaultdict(list)
    for row, stratum in enumerate(strata):
        by_stratum[stratum].append(row)
    places = []
    for stratum in sorted(by_stratum):
        members = by_stratum[stratum]
        rng.shuffle(members)
        places += [((k + 0.5) / len(members), rng.random(), row) for k, row in enumerate(members)]
    return [row for _, _, row in sorted(places)]


def check(raw: Raw, split: str, task: Task) -> None:
    """Raise InputError if a split is empty, a text is not valid, or the task does not have a label."""
    examples = raw.splits[split]
    if not len(examples):
        raise InputError(f"{raw.source}: the {split} split is empty")
    for row, (texts, label) in enumerate(zip(examples.texts, examples.labels, strict=True)):
        place = raw.origin(split, row)
        for text in texts:
            files.check_text(text, place)
        task.check(label, place)


def cut_dev(splits: dict[str, Examples], task: Task, fraction: float, seed: int) -> dict[str, Examples]:
    """Return the splits with `fraction` of train moved to dev; both stay in the order of the source."""
    train = splits["train"]
    size = round(fraction * len(train))
    if not 0 < size < len(train):
        raise InputError(
            f"data.dev_fraction {fraction} of {len(train)} training examples leaves {size} for dev; give a fraction between 0 and 1"
        )
    order = stratified_order(task.strata(train.labels), f"dev {seed}")
    return {**splits, "train": train.take(sorted(order[size:])), "dev": train.take(sorted(order[:size]))}


def limit(examples: Examples, task: Task, split: str, size: int, seed: int) -> Examples:
    """Return `size` examples, drawn by `seed` in proportion to the strata of the labels; 0 is all."""
    if size == 0:
        return examples
    if not 0 < size <= len(examples):
        field = "train_examples" if split == "train" else "eval_examples"
        raise InputError(f"data.{field}={size}, but the {split} split has {len(examples)} examples; 0 is all of them")
    return examples.take(sorted(stratified_order(task.strata(examples.labels), f"{split} {seed}")[:size]))
