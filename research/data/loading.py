"""Loading of a task's data from files, TFDS or the built-in demo, with the checks that apply to every source."""

import dataclasses
from collections import Counter
from collections.abc import Mapping

from research.data import augment as augmentation
from research.data import describe
from research.data.examples import SPLITS, Dataset, Examples, Raw, fingerprint, rows
from research.data.sources import demo, files, tfds
from research.data.splits import check, cut_dev, limit
from research.errors import InputError, nearest
from research.tasks.base import WORD, Task


def load(
    task: Task,
    *,
    source: str,
    path: str = "",
    seed: int = 0,
    dev_fraction: float = 0.1,
    train_examples: int = 0,
    eval_examples: int = 0,
    augment: str = "",
    augment_rate: float = 0.1,
    augment_copies: int = 1,
) -> Dataset:
    """Return the train, dev and test examples of a task.

    The classes are those of the task, or the labels of train in natural order. Blanks around labels are removed.
    `source` is "files" (`path`: a folder), "tfds" (`path`: its data_dir, "" is the default) or "demo" (no path). A missing dev split is
    cut from the full train split: `dev_fraction` of it, drawn by `seed` in proportion to the labels. Then `train_examples` of train and
    `eval_examples` of dev and of test are drawn, by `seed` and in proportion to the labels; 0 is all. A smaller number gives a subset of
    a larger one. Examples stay in the order of the source. Last, `augment` adds `augment_copies` changed copies of each training text
    (see `augment.add`). Raise InputError, naming the place, for data or arguments that cannot be used.
    """
    if source not in SOURCES:
        raise InputError(f"data.source {source!r} is not a source; {nearest(source, SOURCES)}")
    raw = SOURCES[source](task, path)
    full, changes = _normalized(raw.splits, task)
    raw = dataclasses.replace(raw, splits=full)
    task = task.fit(full["train"].labels, raw.source)
    for split in raw.splits:
        check(raw, split, task)
    splits = raw.splits if "dev" in raw.splits else cut_dev(raw.splits, task, dev_fraction, seed)
    sizes = {"train": train_examples, "dev": eval_examples, "test": eval_examples}
    splits = {split: limit(splits[split], task, split, sizes[split], seed) for split in SPLITS}
    if augment and task.outputs_per == WORD:
        raise InputError(f"data.augment={augment} changes the words, of which each has its label in task {task.name!r}; leave it empty")
    if augment:
        splits["train"] = augmentation.add(splits["train"], augment, augment_rate, augment_copies, seed)
    task.check_train(splits["train"].labels, raw.source)
    notes = describe.notes(raw, splits, task, changes)
    return Dataset(splits, task, raw.source, fingerprint(splits, task), fingerprint(full, task), notes)


def _normalized(splits: Mapping[str, Examples], task: Task) -> tuple[dict[str, Examples], Counter]:
    """Return the splits with labels as the task uses them, and a count of (label before, label) where this changes the label."""
    result, counts = {}, Counter()
    for name, examples in splits.items():
        labels = tuple(map(task.normalized, examples.labels))
        counts.update(pair for pair in zip(examples.labels, labels, strict=True) if pair[0] != pair[1])
        result[name] = dataclasses.replace(examples, labels=labels)
    return result, counts


def _demo(task: Task, path: str) -> Raw:
    """Return the built-in reviews with the labels that the task gives them. A pair is two consecutive reviews."""
    splits = {}
    for split, reviews in demo.reviews().items():
        size = len(reviews)
        texts = [tuple(reviews[(row + k) % size][0] for k in range(len(task.texts))) for row in range(size)]
        labels = [task.demo_label(row, demo.LABELS.index(sentiment), texts[row]) for row, (_, sentiment) in enumerate(reviews)]
        splits[split] = rows(split, texts, labels)
    return Raw(splits, lambda split, row: f"demo, split {split!r}, row {row}", "demo")


SOURCES = {"files": files.read_folder, "tfds": tfds.read, "demo": _demo}
