"""How well does each method work on one task, and what does it cost? All methods have the same budget of training examples.

python -m research.ablation --config=configs/ablations/methods.py:task=trec,path=FOLDER
"""

from configs import ablations
from research.ablation import sweep as sweeps

METHODS = (
    "full",
    "linear_probe",
    "top_k",
    "bitfit",
    "layernorm",
    "embeddings_frozen",
    "gradual_unfreezing",
    "chain_thaw",
    "llrd",
    "discriminative",
    "lora",
    "dora",
    "vera",
    "ia3",
    "houlsby",
    "pfeiffer",
    "parallel_adapter",
    "compacter",
    "prefix",
    "soft_prompt",
    "chosen_layer",
    "last4_concat",
    "scalar_mix",
    "feature_bilstm",
    "feature_concat",
    "l2sp",
    "mixout",
    "child_tuning",
    "noisytune",
    "reinit_top",
    "rdrop",
    "smart",
    "freelb",
    "sam",
    "ema",
    "swa",
)


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`, `smoke`.
    """
    return ablations.base(ablations.words(arg))


def sweep(arg: str = ""):
    """Return all methods with all seeds."""
    return sweeps.product(sweeps.over("method", METHODS), ablations.seeds(ablations.words(arg)))
