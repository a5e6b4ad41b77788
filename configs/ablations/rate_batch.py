"""Does the best learning rate depend on the batch size? The grid that Devlin et al. 2019 (appendix A.3) search for each task, extended.

python -m research.ablation --config=configs/ablations/rate_batch.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/rate_batch.py:task=trec,path=FOLDER,method=lora

48 runs: 4 batch sizes x 4 learning rates, 3 seeds. All runs train on the same number of examples, so half the batch size means twice the
steps. The rates are values of `base_learning_rate`, which each method multiplies by a fixed factor.
"""

from configs import ablations
from research.ablation import sweep as sweeps

SIZES = (8, 16, 32, 64)
RATES = (2e-5, 5e-5, 1e-4, 2e-4)


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `method=full`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`, `smoke`.
    """
    return ablations.base(ablations.words(arg))


def sweep(arg: str = ""):
    """Return every learning rate with every batch size."""
    chosen = ablations.words(arg)
    sizes, rates = (ablations.few(chosen, values) for values in (SIZES, RATES))
    return sweeps.product(sweeps.over("batch_size", sizes), sweeps.over("base_learning_rate", rates), ablations.seeds(chosen))
