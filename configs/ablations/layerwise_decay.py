"""Should lower layers have lower learning rates, and does that allow a higher rate at the top? Ratios of a layer's learning rate to that of
the layer above (Sun et al. 2019, section 5.3.3: 0.95 was best on IMDb), at several learning rates of the top layer.

python -m research.ablation --config=configs/ablations/layerwise_decay.py:task=trec,path=FOLDER

45 runs: 3 rates x 5 decays, 3 seeds. A decay of 1 is full fine-tuning.
"""

from configs import ablations
from research.ablation import sweep as sweeps

RATES = (5e-5, 1e-4, 2e-4)
DECAYS = (1.0, 0.95, 0.9, 0.8, 0.65)


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`, `smoke`.
    """
    return ablations.base(ablations.words(arg, method="llrd"))


def sweep(arg: str = ""):
    """Return every decay at every learning rate."""
    chosen = ablations.words(arg)
    rates = sweeps.over("base_learning_rate", ablations.few(chosen, RATES))
    return sweeps.product(rates, sweeps.over("llrd_decay", ablations.few(chosen, DECAYS)), ablations.seeds(chosen))
