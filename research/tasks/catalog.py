"""The catalog of tasks. To add a task of a known kind, add an entry to `TASKS`; a new kind is a subclass of `Task` in a file of its own."""

from ml_collections import ConfigDict

from research.errors import InputError, nearest
from research.tasks.base import Task, Tfds
from research.tasks.classification import Classification
from research.tasks.tagging import Tagging

PAIR = ("text_a", "text_b")

TASKS = {
    task.name: task
    for task in (
        Classification("custom"),
        Classification("custom_pairs", texts=PAIR),
        Classification("imdb", labels=("neg", "pos"), tfds=Tfds("imdb_reviews", ("text",), "label", {"train": "train", "test": "test"})),
        # GLUE hides the labels of its test split, so results are reported on its validation split.
        Classification(
            "sst2",
            labels=("negative", "positive"),
            tfds=Tfds("glue/sst2", ("sentence",), "label", {"train": "train", "test": "validation"}),
        ),
        Classification("trec", tfds=Tfds("trec", ("text",), "label-coarse", {"train": "train", "test": "test"})),
        Classification(
            "ag_news",
            labels=("World", "Sports", "Business", "Sci/Tech"),
            tfds=Tfds("ag_news_subset", ("title", "description"), "label", {"train": "train", "test": "test"}),
        ),
        Classification(
            "mrpc",
            texts=PAIR,
            labels=("not_equivalent", "equivalent"),
            metric="f1",
            tfds=Tfds("glue/mrpc", ("sentence1", "sentence2"), "label", {"train": "train", "dev": "validation", "test": "test"}),
        ),
        *(Tagging(name) for name in ("custom_tags", "conll2003", "wnut17", "conll2000")),
    )
}


def get(name: str) -> Task:
    """Return the task called `name`. Raises InputError that suggests the nearest name."""
    if name not in TASKS:
        raise InputError(f"task {name!r} is not in the catalog; {nearest(name, TASKS)}")
    return TASKS[name]


def of(config: ConfigDict) -> Task:
    """Return the task of a config, with the metric and positive class that the config sets.

    Raises InputError that suggests the nearest task or metric."""
    return get(config.task).configured(config.metric, config.positive)
