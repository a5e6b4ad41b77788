"""What should a classifier read from the last hidden states: the pretrained pooler's output, the first token, the mean or the maximum? Does
the answer depend on how much of the encoder is trained?

python -m research.ablation --config=configs/ablations/pooling.py:task=trec,path=FOLDER

57 runs: 4 poolings x 4 methods, and 3 poolings with a learned mean of all layers, which the pooler was not pretrained on; 3 seeds.
"""

from configs import ablations
from research.ablation import sweep as sweeps

POOLINGS = ("pooler", "first", "mean", "max")
METHODS = ("full", "top_k", "lora", "linear_probe")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`, `smoke`.
    """
    return ablations.base(ablations.words(arg))


def sweep(arg: str = ""):
    """Return every pooling with every method that supports it."""
    chosen = ablations.words(arg)
    methods = sweeps.product(sweeps.over("method", ablations.few(chosen, METHODS)), sweeps.over("pooling", POOLINGS))
    mixed = sweeps.product([{"method": "scalar_mix"}], sweeps.over("pooling", POOLINGS[1:]))
    return sweeps.product(sweeps.chain(methods, mixed), ablations.seeds(chosen))
