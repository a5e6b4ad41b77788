"""How many layers must train? From all of them and the embeddings down to the head alone, with the same budget of examples.

python -m research.ablation --config=configs/ablations/freezing.py:task=trec,path=FOLDER,seeds=5
"""

from configs import ablations
from research.ablation import sweep as sweeps


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, seeds="5", layers="")


def base(arg: str = ""):
    """Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `layers=` (of a model not named here), `seeds=5`, `examples=8192`,
    `data=`, `demo`, `smoke`."""
    return ablations.base(_words(arg))


def sweep(arg: str = ""):
    """Everything; then the embeddings frozen and 0, 1, ... layers above them; then all. Raises InputError on a depth not known."""
    chosen = _words(arg)
    top = sweeps.product([{"method": "top_k"}], sweeps.over("top_layers", range(ablations.layers(chosen), 0, -1)))
    depths = sweeps.chain([{"method": "full"}], top, [{"method": "linear_probe"}])
    return sweeps.product(depths, ablations.seeds(chosen))
