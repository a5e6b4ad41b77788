"""Should LoRA spend its parameters on a higher rank or on more matrices? Hu et al. 2022 (tables 5 and 6) found that rank 1 on queries and
values is enough for GPT-3, and that more kinds of matrices are better than a higher rank.

python -m research.ablation --config=configs/ablations/lora.py:task=trec,path=FOLDER

51 runs: full fine-tuning, then 4 ranks x 4 sets of matrices, 3 seeds. As in the paper, alpha is the same for all ranks (section 4.1).
"""

from configs import ablations
from research.ablation import sweep as sweeps

RANKS = (1, 4, 16, 64)
TARGETS = ("attention/query", "attention/query,attention/value", "attention", "attention,mlp")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`, `smoke`.
    """
    return ablations.base(ablations.words(arg))


def sweep(arg: str = ""):
    """Return full fine-tuning, the setting that the others are compared to; then every rank in every set of matrices."""
    chosen = ablations.words(arg)
    ranks = RANKS[:2] if chosen["smoke"] else RANKS  # the tiny model is too small for higher ranks
    targets = sweeps.over("lora.targets", ablations.few(chosen, TARGETS))
    lora = sweeps.product([{"method": "lora"}], targets, sweeps.over("lora.rank", ranks))
    return sweeps.product(sweeps.chain([{"method": "full"}], lora), ablations.seeds(chosen))
