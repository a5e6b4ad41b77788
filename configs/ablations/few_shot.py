"""How few labels are enough, and which method needs the fewest? From 16 training examples to all.

python -m research.ablation --config=configs/ablations/few_shot.py:task=trec,path=FOLDER
python -m research.ablation --config=configs/ablations/few_shot.py:task=trec,path=FOLDER --only="train_examples=64 "

120 runs: 8 sizes x 3 methods, 5 seeds. With `--only`, the table compares the methods at one size.

Every run makes as many steps as the budget has batches of 32, whatever the size: equal epochs would give 16 examples three steps, and what
looks like a lack of labels would be a lack of training (Mosbach et al. 2021; Zhang et al. 2021). Each seed draws examples of its own, the
same for all methods: which examples one has is most of the chance in it. Nothing is chosen on dev, which would be more labels
(Perez et al. 2021): the last step is what is tested.
"""

from configs import ablations
from research.ablation import sweep as sweeps

SIZES = (16, 32, 64, 128, 256, 512, 1024, 0)  # 0 is all
METHODS = ("full", "linear_probe", "lora")


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, seeds="5")


def base(arg: str = ""):
    """Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=5`, `examples=8192` (the budget), `demo`, `smoke`."""
    chosen = _words(arg)
    return ablations.base(chosen, {"total_steps": ablations.steps(chosen), "eval_percent": 100.0}, data__seed=None)


def sweep(arg: str = ""):
    """Every method at every size."""
    chosen = _words(arg)
    sizes = sweeps.over("data.train_examples", ablations.few(chosen, SIZES))
    return sweeps.product(sizes, sweeps.over("method", METHODS), ablations.seeds(chosen))
