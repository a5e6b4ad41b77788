"""How few labelled examples are enough, and which method needs the fewest? From 16 training examples to the full training set.

python -m research.ablation --config=configs/ablations/few_shot.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/few_shot.py:task=trec,path=FOLDER --only="train_examples=64 "

120 runs: 8 sizes x 3 methods, 5 seeds. With `--only`, the table compares the methods at one size.

All runs train for the same number of steps: as many as the budget has batches of 32. With equal epochs, runs on 16 examples would train for
only three steps and confound too few labels with too little training (Mosbach et al. 2021; Zhang et al. 2021). Each seed draws different
training examples, the same for all methods, because the choice of examples causes most of the variance. No checkpoint is selected on dev,
because that would use more labels (Perez et al. 2021): the last step is tested.
"""

from configs import ablations
from research.ablation import sweep as sweeps

SIZES = (16, 32, 64, 128, 256, 512, 1024, 0)  # 0: the full training set
METHODS = ("full", "linear_probe", "lora")


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, seeds="5")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=5`, `examples=8192` (the budget), `demo`, `smoke`.
    """
    chosen = _words(arg)
    return ablations.base(chosen, {"total_steps": ablations.steps(chosen), "eval_percent": 100.0}, data__seed=None)


def sweep(arg: str = ""):
    """Return every method at every size."""
    chosen = _words(arg)
    sizes = sweeps.over("data.train_examples", ablations.few(chosen, SIZES))
    return sweeps.product(sizes, sweeps.over("method", METHODS), ablations.seeds(chosen))
