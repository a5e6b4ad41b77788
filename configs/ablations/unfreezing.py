"""Is it better to unfreeze the encoder gradually, and how quickly? Unfreezing schedules with the same budget of training examples.

python -m research.ablation --config=configs/ablations/unfreezing.py:task=trec,path=FOLDER

42 runs: 14 schedules, 3 seeds. Two schedules have a single phase: all layers train (`full`), or only the upper half trains (`top_k`). Four
others have several phases, and the last phase starts after a quarter, half or three quarters of the training: the head, then all layers
at once (Kumar et al. 2022); layer by layer from the top (Howard & Ruder 2018); each layer alone, then all (Felbo et al. 2017); and ULMFiT,
which combines gradual unfreezing, discriminative learning rates and a slanted triangular schedule.
"""

from configs import ablations
from research.ablation import sweep as sweeps

ENDS = (25, 50, 75)  # start of the last phase, in percent of the training


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, layers="")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=trec|sst2|...`, `path=FOLDER`, `model=`, `layers=` (for a model not in `ablations.LAYERS`), `data=`, `seeds=3`,
    `examples=8192` (the budget), `demo`, `smoke`.
    """
    return ablations.base(_words(arg))


def sweep(arg: str = ""):
    """Return all schedules. Raises InputError if the model's number of layers is not known."""
    chosen = _words(arg)
    layers = ablations.layers(chosen)
    stages = layers + 1  # the layers and the embeddings
    gradual, thaw = {"method": "gradual_unfreezing"}, {"method": "chain_thaw"}
    ulmfit = {"method": "gradual_unfreezing+discriminative", "schedule": "slanted_triangular"}
    schedules = sweeps.chain(
        [{"method": "full"}, {"method": "top_k", "top_layers": max(layers // 2, 1)}],
        sweeps.product([gradual | {"unfreeze_layers": stages}], _phase_lengths(1)),
        sweeps.product([gradual], _phase_lengths(stages)),
        sweeps.product([thaw], _phase_lengths(stages + 1)),
        sweeps.product([ulmfit], _phase_lengths(stages)),
    )
    return sweeps.product(schedules, ablations.seeds(chosen))


def _phase_lengths(borders: int) -> list[sweeps.Overrides]:
    """Return phase lengths for which the last phase starts at each of `ENDS`, after `borders` phases."""
    return sweeps.over("phase_percent", [round(end / borders, 1) for end in ENDS])
