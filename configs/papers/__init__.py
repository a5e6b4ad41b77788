"""Tables of papers: published numbers, and sweeps that would reproduce them. `research.ablation.report.published` documents the format.

The words of every table are `seeds=`, `path=FOLDER` (data=tfds: the data_dir; data=files: the task's folder, or for several tasks a folder
with one subfolder per task), `model=`, `data=tfds|files`, `demo`, `smoke`. Without words, a sweep has the paper's setup. With a stand-in
for the paper's model or data, the verdict in the results table is "shape only".
"""

from ml_collections import ConfigDict

from configs import ablations
from research.ablation import sweep as sweeps
from research.config import fields

# Task -> split -> number of examples in the published data (Maas et al. 2011; Wang et al. 2019). "test" is our catalog's test split.
EXAMPLES = {
    "imdb": {"train": 25_000, "test": 25_000},
    "sst2": {"train": 67_349, "test": 872},
    "mrpc": {"train": 3_668, "dev": 408, "test": 1_725},
}


def words(arg: str, model: str, seeds: int = 5) -> dict[str, str]:
    """Parse the words of a table; `model` and `seeds` are the paper's."""
    return fields.words(arg, model=model, data="tfds", path="", seeds=str(seeds))


def base(chosen: dict[str, str], task: str, **recipe) -> ConfigDict:
    """Return the config of `task` with the paper's recipe (`__` in a name stands for a dot). A smoke run still has only two steps."""
    c = fields.base(task, chosen)
    c.data.path = chosen["path"]
    fields.override(c, {name.replace("__", "."): value for name, value in recipe.items()})
    return fields.finish(c, chosen)


def seeded(chosen: dict[str, str], settings: list[sweeps.Overrides]) -> list[sweeps.Overrides]:
    """Return each setting with all seeds. With data=files, a setting with a task reads the subfolder named after the task."""
    if chosen["data"] == "files":
        settings = [setting | ({"data.path": f"{chosen['path']}/{setting['task']}"} if "task" in setting else {}) for setting in settings]
    return sweeps.product(settings, ablations.seeds(chosen))


def recipes(chosen: dict[str, str], settings: list[tuple[sweeps.Overrides, sweeps.Overrides]]) -> list[sweeps.Overrides]:
    """Return each setting joined with its recipe, or without the recipe in a smoke run."""
    return [setting | ({} if chosen["smoke"] else recipe) for setting, recipe in settings]
