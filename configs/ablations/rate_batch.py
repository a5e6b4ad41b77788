"""Does the best learning rate follow the batch size? The grid that Devlin et al. 2019 (appendix A.3) search for each task, and beyond.

python -m research.ablation --config=configs/ablations/rate_batch.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/rate_batch.py:task=trec,path=FOLDER,method=lora

48 runs: 4 batch sizes x 4 rates, 3 seeds. All see as many examples, so a batch half as large makes twice as many steps. Rates are
`base_learning_rate`, of which a method takes the multiple that suits it.
"""

from configs import ablations
from research.ablation import sweep as sweeps

SIZES = (8, 16, 32, 64)
RATES = (2e-5, 5e-5, 1e-4, 2e-4)


def base(arg: str = ""):
    """Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `method=full`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`,
    `smoke`."""
    return ablations.base(ablations.words(arg))


def sweep(arg: str = ""):
    """Every rate with every batch size."""
    chosen = ablations.words(arg)
    sizes, rates = (ablations.few(chosen, values) for values in (SIZES, RATES))
    return sweeps.product(sweeps.over("batch_size", sizes), sweeps.over("base_learning_rate", rates), ablations.seeds(chosen))
