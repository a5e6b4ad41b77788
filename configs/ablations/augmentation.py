"""Can augmented copies of the training texts replace more training texts? Random word deletion, swap and cropping (the operations of EDA,
Wei & Zou 2019, that need no thesaurus), on small training sets and on the full one.

python -m research.ablation --config=configs/ablations/augmentation.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/augmentation.py:task=trec,path=FOLDER --only="train_examples=500 "

63 runs: 3 sizes x (no augmentation, then 3 operations at 2 rates), 3 seeds. Each text has four augmented copies. All runs train on the same
number of examples, so that more texts do not mean more training. With `--only`, the table compares runs of one size.
"""

from configs import ablations
from research.ablation import sweep as sweeps

SIZES = (500, 2000, 0)  # 0: the full training set
SMALL = (16, 32)  # in a smoke run
OPERATIONS = ("deletion", "swap", "crop")
RATES = (0.1, 0.3)


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`, `smoke`.
    """
    return ablations.base(ablations.words(arg), data__augment_copies=4)


def sweep(arg: str = ""):
    """Return, for each size, a run without augmentation and then every operation at every rate."""
    chosen = ablations.words(arg)
    operations = sweeps.product(sweeps.over("data.augment", OPERATIONS), sweeps.over("data.augment_rate", ablations.few(chosen, RATES)))
    sizes = sweeps.over("data.train_examples", SMALL if chosen["smoke"] else SIZES)
    return sweeps.product(sizes, sweeps.chain([{"data.augment": ""}], operations), ablations.seeds(chosen))
