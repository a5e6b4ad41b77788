"""Is it better to open the encoder step by step, and how fast? Schedules of which layers train when, with the same budget of examples.

python -m research.ablation --config=configs/ablations/unfreezing.py:task=trec,path=FOLDER

42 runs: 14 schedules, 3 seeds. All is open from the start (`full`); the upper half alone ever trains (`top_k`); the head alone, then all
at once (Kumar et al. 2022); layer by layer from the top (Howard & Ruder 2018); each layer alone, then all (Felbo et al. 2017): each
with the last phase beginning after a quarter, half and three quarters of the training. And ULMFiT's three ideas in one.
"""

from configs import ablations
from research.ablation import sweep as sweeps

ENDS = (25, 50, 75)  # when the last phase begins, in percent of the training


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, layers="")


def base(arg: str = ""):
    """Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `layers=` (of a model not named in `ablations.LAYERS`), `data=`, `seeds=3`,
    `examples=8192` (the budget), `demo`, `smoke`."""
    return ablations.base(_words(arg))


def sweep(arg: str = ""):
    """Every schedule. Raises InputError on a depth not known."""
    chosen = _words(arg)
    layers = ablations.layers(chosen)
    stages = layers + 1  # with the embeddings
    gradual, thaw = {"method": "gradual_unfreezing"}, {"method": "chain_thaw"}
    ulmfit = {"method": "gradual_unfreezing+discriminative", "schedule": "slanted_triangular"}
    schedules = sweeps.chain(
        [{"method": "full"}, {"method": "top_k", "top_layers": max(layers // 2, 1)}],
        sweeps.product([gradual | {"unfreeze_layers": stages}], _ending(1)),
        sweeps.product([gradual], _ending(stages)),
        sweeps.product([thaw], _ending(stages + 1)),
        sweeps.product([ulmfit], _ending(stages)),
    )
    return sweeps.product(schedules, ablations.seeds(chosen))


def _ending(borders: int) -> list[sweeps.Overrides]:
    """Phases of such length that the last one begins at each of `ENDS`, where there are `borders` between them."""
    return sweeps.over("phase_percent", [round(end / borders, 1) for end in ENDS])
