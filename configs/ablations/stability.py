"""Why do some seeds of fine-tuning fail? Warm-up and Adam's bias correction, which BERT's original optimizer lacks, over many seeds
(Mosbach et al. 2021; Zhang et al. 2021). The quantity of interest is the standard deviation over seeds.

python -m research.ablation --config=configs/ablations/stability.py:task=mrpc,path=FOLDER
python -m research.ablation --config=configs/ablations/stability.py:task=mrpc,path=FOLDER,model=bert-large,examples=73360

100 runs: with and without warm-up x with and without bias correction, 25 seeds; 3 epochs of MRPC. In the paper, only large models fail. The
second command trains a large model for the 20 epochs that the paper recommends.
"""

from configs import ablations
from research.ablation import sweep as sweeps


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, task="mrpc", seeds="25", examples="11004")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=mrpc|...`, `path=FOLDER`, `model=`, `data=`, `seeds=25`, `examples=11004` (the budget), `demo`, `smoke`.
    """
    return ablations.base(_words(arg), max_length=128, batch_size=16, base_learning_rate=2e-5, epsilon=1e-6)


def sweep(arg: str = ""):
    """Return the runs with and without warm-up, each with and without bias correction."""
    warmups = sweeps.over("warmup_percent", (10.0, 0.0))
    return sweeps.product(warmups, sweeps.over("bias_correction", (True, False)), ablations.seeds(_words(arg)))
