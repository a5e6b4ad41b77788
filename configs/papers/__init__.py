"""Tables of papers: what they published, and the sweeps that would reproduce it. `research.ablation.report.published` says what a file has.

Every table's words are `seeds=`, `path=FOLDER` (data=tfds: its data_dir; data=files: the task's folder, or of several tasks the folder
that holds one for each), `model=`, `data=tfds|files`, `demo`, `smoke`. Without words it is what the paper did; with a stand-in for
its model or data the table says so.
"""

from ml_collections import ConfigDict

from configs import ablations
from research.ablation import sweep as sweeps
from research.config import fields

# Task -> split -> how many examples the published data have (Maas et al. 2011; Wang et al. 2019); a test split is the catalog's.
EXAMPLES = {
    "imdb": {"train": 25_000, "test": 25_000},
    "sst2": {"train": 67_349, "test": 872},
    "mrpc": {"train": 3_668, "dev": 408, "test": 1_725},
}


def words(arg: str, model: str, seeds: int = 5) -> dict[str, str]:
    """The words of a table whose paper has this model."""
    return fields.words(arg, model=model, data="tfds", path="", seeds=str(seeds))


def base(chosen: dict[str, str], task: str, **recipe) -> ConfigDict:
    """The paper's recipe for `task`; a double underscore in a name stands for a dot. A smoke run is one of two steps all the same."""
    c = fields.base(task, chosen)
    c.data.path = chosen["path"]
    fields.override(c, {name.replace("__", "."): value for name, value in recipe.items()})
    return fields.finish(c, chosen)


def seeded(chosen: dict[str, str], settings: list[sweeps.Overrides]) -> list[sweeps.Overrides]:
    """Each setting with as many seeds as the words say; settings that have a task find its files in a folder of its name."""
    if chosen["data"] == "files":
        settings = [one | ({"data.path": f"{chosen['path']}/{one['task']}"} if "task" in one else {}) for one in settings]
    return sweeps.product(settings, ablations.seeds(chosen))


def recipes(chosen: dict[str, str], settings: list[tuple[sweeps.Overrides, sweeps.Overrides]]) -> list[sweeps.Overrides]:
    """Settings with the recipe of each; a smoke run has its own."""
    return [name | ({} if chosen["smoke"] else recipe) for name, recipe in settings]
