"""Does speed cost accuracy? bfloat16 products and packed rows beside float32 and a row for each example, on the recipe of a task.

python -m research.ablation --config=configs/ablations/precision.py:task=sst2,path=FOLDER
"""

import importlib

from configs import ablations
from research.ablation import sweep as sweeps
from research.config import fields


def _words(arg: str) -> dict[str, str]:
    return fields.words(arg, task="sst2", model="minilm", data="files", path="", seeds="3", epochs="")


def base(arg: str = ""):
    """Words: `task=` (a config of configs/), `path=FOLDER`, `model=`, `data=`, `seeds=3`, `epochs=` (the recipe's), `demo`, `smoke`."""
    chosen = _words(arg)
    recipe = importlib.import_module(f"configs.{chosen['task']}")
    c = recipe.get_config(f"model={chosen['model']},data={chosen['data']}")
    c.data.path = chosen["path"]
    if chosen["epochs"]:
        fields.override(c, {"total_epochs": float(chosen["epochs"])})
    return fields.finish(c, chosen)


def sweep(arg: str = ""):
    """Fast and exact, with as many seeds."""
    fast = {"precision": "bfloat16", "packing": "packed"}
    exact = {"precision": "float32", "packing": "padded"}
    return sweeps.product([fast, exact], ablations.seeds(_words(arg)))
