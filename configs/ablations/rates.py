"""Which learning rate is best for each method, by the score on dev? Half the default rate, the default rate and twice the default rate.

python -m research.ablation --config=configs/ablations/rates.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/rates.py:task=custom,path=FOLDER,method=lora

324 runs: 36 methods x 3 rates, 3 seeds; use `seeds=1` for a quick check. The rates are values of `base_learning_rate`, which each method
multiplies by its factor in `research/adapt/methods.py:METHODS`. A default is changed if another rate has a higher mean dev score over
several tasks.
"""

from configs import ablations
from configs.ablations.methods import METHODS
from research.ablation import sweep as sweeps

FACTORS = (0.5, 1.0, 2.0)


def words(arg: str) -> dict[str, str]:
    """Parse the words of all ablations, and `method=` (by default all methods)."""
    return ablations.words(arg, method="")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|custom|...`, `path=FOLDER`, `model=`, `method=` (by default all), `data=`, `seeds=3`, `examples=8192` (the
    budget), `demo`, `smoke`.
    """
    chosen = words(arg)
    return ablations.base(chosen | {"method": chosen["method"] or "full"})


def sweep(arg: str = ""):
    """Return every method with every learning rate."""
    chosen = words(arg)
    few = ablations.few(chosen, METHODS)
    rate = base(arg).base_learning_rate
    rates = sweeps.over("base_learning_rate", [rate * factor for factor in FACTORS])
    return sweeps.product(sweeps.over("method", [chosen["method"]] if chosen["method"] else few), rates, ablations.seeds(chosen))
