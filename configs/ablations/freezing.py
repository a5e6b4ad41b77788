"""How many layers must train? From all of them and the embeddings down to the head alone, with the same budget of examples.

python -m research.ablation --config=configs/ablations/freezing.py:task=trec,path=FOLDER,seeds=5
"""

from configs import common
from research.ablation import sweep as sweeps
from research.errors import InputError

LAYERS = {"tiny": 2, "minilm": 6, "bert-base": 12, "bert-large": 24}


def _words(arg: str) -> dict[str, str]:
    return common.words(arg, task="trec", model="minilm", data="files", path="", seeds="5", examples="8192", layers="")


def base(arg: str = ""):
    """Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `layers=` (of a model not named here), `seeds=5`, `examples=8192`,
    `data=`, `demo`, `smoke`."""
    chosen = _words(arg)
    c = common.base(chosen["task"], chosen)
    c.data.path = chosen["path"]
    c.max_length = 64
    common.override(c, {"total_examples": int(chosen["examples"]), "eval_percent": 50.0})
    return common.finish(c, chosen)


def sweep(arg: str = ""):
    """Everything; then the embeddings frozen and 0, 1, ... layers above them; then all. Raises InputError on a depth not known."""
    chosen = _words(arg)
    model = "tiny" if chosen["smoke"] else chosen["model"]
    if model not in LAYERS and not chosen["layers"]:
        raise InputError(f"how many layers {model!r} has is not known here; add layers=N")
    layers = LAYERS.get(model) or int(chosen["layers"])
    top = sweeps.product([{"method": "top_k"}], sweeps.over("top_layers", range(layers, 0, -1)))
    depths = sweeps.chain([{"method": "full"}], top, [{"method": "linear_probe"}])
    return sweeps.product(depths, sweeps.seeds(int(chosen["seeds"])))
