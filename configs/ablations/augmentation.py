"""Do changed copies of the training texts stand in for more texts? Words deleted, swapped or cropped (Wei & Zou 2019, "EDA", those
operations that need no thesaurus), for small training sets and for all.

python -m research.ablation --config=configs/ablations/augmentation.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/augmentation.py:task=trec,path=FOLDER --only="train_examples=500 "

63 runs: 3 sizes x (nothing, then 3 operations at 2 rates), 3 seeds. Four copies of each text; all see as many examples, so that more
texts are not more training. With `--only`, the table compares at one size.
"""

from configs import ablations
from research.ablation import sweep as sweeps

SIZES = (500, 2000, 0)  # 0 is all
SMALL = (16, 32)  # in a smoke run
OPERATIONS = ("deletion", "swap", "crop")
RATES = (0.1, 0.3)


def base(arg: str = ""):
    """Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`, `smoke`."""
    return ablations.base(ablations.words(arg), data__augment_copies=4)


def sweep(arg: str = ""):
    """At each size nothing, then every operation at every rate."""
    chosen = ablations.words(arg)
    operations = sweeps.product(sweeps.over("data.augment", OPERATIONS), sweeps.over("data.augment_rate", ablations.few(chosen, RATES)))
    sizes = sweeps.over("data.train_examples", SMALL if chosen["smoke"] else SIZES)
    return sweeps.product(sizes, sweeps.chain([{"data.augment": ""}], operations), ablations.seeds(chosen))
