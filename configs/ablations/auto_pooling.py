"""Does the pooling named in a model's folder (`pooling=auto`) work better than BERT's pooler?

python -m research.ablation --config=configs/ablations/auto_pooling.py:task=trec,path=FOLDER,train=1000

20 runs: 2 methods x 2 poolings, 5 seeds; 3 epochs of `train` examples (0: all). MiniLM's folder names mean pooling; MiniLM's pooler was
never trained.
"""

from configs import ablations
from research.ablation import sweep as sweeps


def words(arg: str) -> dict[str, str]:
    """Parse the words of all ablations, and `train=`."""
    return ablations.words(arg, seeds="5", train="1000")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|custom|...`, `path=FOLDER`, `train=1000`, `model=`, `data=`, `seeds=5`, `demo`, `smoke`.
    """
    chosen = words(arg)
    size = 0 if chosen["train"] == "0" else ablations.number(chosen, "train")
    return ablations.base(chosen, {"total_epochs": 3.0}, **({} if chosen["smoke"] else {"data__train_examples": size}))


def sweep(arg: str = ""):
    """Return full fine-tuning and LoRA, each with both poolings."""
    methods, poolings = sweeps.over("method", ("full", "lora")), sweeps.over("pooling", ("pooler", "auto"))
    return sweeps.product(methods, poolings, ablations.seeds(words(arg)))
