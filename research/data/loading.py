"""Loading of a task's data from files, TFDS or the built-in demo, with the checks that apply to every source."""

import dataclasses

from research.data import augment as augmentation
from research.data import describe
from research.data import labels as classes
from research.data.examples import SPLITS, Dataset, Examples, Raw, fingerprint, rows
from research.data.sources import demo, files, tfds
from research.data.splits import _check, _cut_dev, _limit
from research.errors import InputError, nearest
from research.tasks.base import Task

STAND_IN_CLASSES = tuple(f"class_{k}" for k in range(6))


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
    full, blanks = classes.stripped(raw.splits)
    raw = dataclasses.replace(raw, splits=full)
    labels = task.labels or classes.in_order(full["train"].labels)
    if task.positive and task.positive not in labels:
        raise InputError(f"positive={task.positive!r} is not a class of {raw.source}; {nearest(task.positive, labels)}")
    for split in raw.splits:
        _check(raw, split, labels)
    splits = raw.splits if "dev" in raw.splits else _cut_dev(raw.splits, dev_fraction, seed)
    sizes = {"train": train_examples, "dev": eval_examples, "test": eval_examples}
    splits = {split: _limit(splits[split], split, sizes[split], seed) for split in SPLITS}
    if augment:
        splits["train"] = augmentation.add(splits["train"], augment, augment_rate, augment_copies, seed)
    _check_classes(splits["train"], raw.source)
    notes = describe.notes(raw, splits, labels, blanks)
    return Dataset(splits, labels, raw.source, fingerprint(splits, labels), fingerprint(full, labels), notes)


def _check_classes(train: Examples, source: str) -> None:
    """Raise InputError if all training examples have the same class."""
    if len(set(train.labels)) == 1:
        raise InputError(
            f"{source}: {len(train)} training examples, all of one class ({train.labels[0]!r}); give examples of two or more classes"
        )


def _demo(task: Task, path: str) -> Raw:
    """Return the built-in reviews, for tasks of one text and two classes (negative first).

    Other tasks get stand-in data for smoke runs, from which nothing can be learned: the same reviews (a pair is two consecutive ones),
    whose class is the row number modulo the number of classes.
    """
    real = len(task.texts) == 1 and len(task.labels) == 2
    names = task.labels or STAND_IN_CLASSES
    splits = {}
    for split, reviews in demo.reviews().items():
        size = len(reviews)
        texts = [tuple(reviews[(row + k) % size][0] for k in range(len(task.texts))) for row in range(size)]
        classes = [demo.LABELS.index(label) if real else row % len(names) for row, (_, label) in enumerate(reviews)]
        splits[split] = rows(split, texts, [names[k] for k in classes])
    return Raw(splits, lambda split, row: f"demo, split {split!r}, row {row}", "demo")


SOURCES = {"files": files.read_folder, "tfds": tfds.read, "demo": _demo}
