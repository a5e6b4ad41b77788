"""Does faster training cost accuracy? bfloat16 matrix products with packed batches against float32 with one example per row.

python -m research.ablation --config=configs/ablations/precision.py:task=sst2,path=FOLDER
"""

import importlib

from configs import ablations
from research.ablation import sweep as sweeps
from research.config import fields


def _words(arg: str) -> dict[str, str]:
    return fields.words(arg, task="sst2", model="minilm", data="files", path="", seeds="3", epochs="")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=` (a config of configs/), `path=FOLDER`, `model=`, `data=`, `seeds=3`, `epochs=` (by default the recipe's), `demo`,
    `smoke`.
    """
    chosen = _words(arg)
    recipe = importlib.import_module(f"configs.{chosen['task']}")
    c = recipe.get_config(f"model={chosen['model']},data={chosen['data']}")
    c.data.path = chosen["path"]
    if chosen["epochs"]:
        fields.override(c, {"total_epochs": float(chosen["epochs"])})
    return fields.finish(c, chosen)


def sweep(arg: str = ""):
    """Return the fast and the exact setting with all seeds."""
    fast = {"precision": "bfloat16", "packing": "packed"}
    exact = {"precision": "float32", "packing": "padded"}
    return sweeps.product([fast, exact], ablations.seeds(_words(arg)))
