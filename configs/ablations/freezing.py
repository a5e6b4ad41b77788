"""How many layers must be trained? From all layers and the embeddings down to the head only, with the same budget of training examples.

python -m research.ablation --config=configs/ablations/freezing.py:task=trec,path=FOLDER,seeds=5
"""

from configs import ablations
from research.ablation import sweep as sweeps


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, seeds="5", layers="")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `layers=` (for a model not in `ablations.LAYERS`), `seeds=5`, `examples=8192`,
    `data=`, `demo`, `smoke`.
    """
    return ablations.base(_words(arg))


def sweep(arg: str = ""):
    """Return full fine-tuning; then frozen embeddings and 0, 1, ... frozen layers; then everything frozen but the head.

    Raises InputError if the model's number of layers is not known."""
    chosen = _words(arg)
    top = sweeps.product([{"method": "top_k"}], sweeps.over("top_layers", range(ablations.layers(chosen), 0, -1)))
    depths = sweeps.chain([{"method": "full"}], top, [{"method": "linear_probe"}])
    return sweeps.product(depths, ablations.seeds(chosen))
