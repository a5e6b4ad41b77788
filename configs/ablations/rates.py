"""Which learning rate suits each method? Half its default rate, the rate itself and its double, by the score on dev.

python -m research.ablation --config=configs/ablations/rates.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/rates.py:task=custom,path=FOLDER,method=lora

324 runs: 36 methods x 3 rates, 3 seeds; `seeds=1` is a first look. Rates are `base_learning_rate`, of which a method takes the multiple in
`research/adapt/methods.py:WANTS`. A default is changed where a neighbour has the higher mean of dev over several tasks.
"""

from configs import ablations
from configs.ablations.methods import METHODS
from research.ablation import sweep as sweeps

FACTORS = (0.5, 1.0, 2.0)


def words(arg: str) -> dict[str, str]:
    """The words of all ablations, and `method=`, by default each."""
    return ablations.words(arg, method="")


def base(arg: str = ""):
    """Words: `task=trec|sst2|custom|...`, `path=FOLDER`, `model=`, `method=` (by default each), `data=`, `seeds=3`,
    `examples=8192` (the budget), `demo`, `smoke`."""
    chosen = words(arg)
    return ablations.base(chosen | {"method": chosen["method"] or "full"})


def sweep(arg: str = ""):
    """Every method with every rate."""
    chosen = words(arg)
    few = ablations.few(chosen, METHODS)
    rate = base(arg).base_learning_rate
    rates = sweeps.over("base_learning_rate", [rate * factor for factor in FACTORS])
    return sweeps.product(sweeps.over("method", [chosen["method"]] if chosen["method"] else few), rates, ablations.seeds(chosen))
