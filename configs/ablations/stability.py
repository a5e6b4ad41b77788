"""Why do some seeds of fine-tuning fail? Warm-up and the correction of Adam's bias, which BERT's own optimizer leaves out, over many seeds
(Mosbach et al. 2021; Zhang et al. 2021): what to look at is the spread.

python -m research.ablation --config=configs/ablations/stability.py:task=mrpc,path=FOLDER
python -m research.ablation --config=configs/ablations/stability.py:task=mrpc,path=FOLDER,model=bert-large,examples=73360

100 runs: with and without each, 25 seeds; 3 epochs of MRPC. The failures of the paper are those of large models. The second command
trains for the 20 epochs that it recommends.
"""

from configs import ablations
from research.ablation import sweep as sweeps


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, task="mrpc", seeds="25", examples="11004")


def base(arg: str = ""):
    """Words: `task=mrpc|...`, `path=FOLDER`, `model=`, `data=`, `seeds=25`, `examples=11004` (the budget), `demo`, `smoke`."""
    return ablations.base(_words(arg), max_length=128, batch_size=16, base_learning_rate=2e-5, epsilon=1e-6)


def sweep(arg: str = ""):
    """With and without warm-up, with and without the correction."""
    warmups = sweeps.over("warmup_percent", (10.0, 0.0))
    return sweeps.product(warmups, sweeps.over("bias_correction", (True, False)), ablations.seeds(_words(arg)))
