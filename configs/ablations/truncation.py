"""Which part of a long text is most useful for classification, and how many tokens are needed? The head, the tail or both (Sun et al. 2019,
section 5.3.1: the first 128 and the last 382 of 512 tokens were best on IMDb), at several lengths.

python -m research.ablation --config=configs/ablations/truncation.py:task=imdb,path=FOLDER

36 runs: 4 lengths x 3 truncations, 3 seeds. With `head_tail`, a quarter of the tokens come from the head, as in the paper.
"""

from configs import ablations
from research.ablation import sweep as sweeps

LENGTHS = (64, 128, 256, 512)
SHORT = (16, 32)  # in a smoke run


def _words(arg: str) -> dict[str, str]:
    return ablations.words(arg, task="imdb")


def base(arg: str = ""):
    """Return the base config.

    Words: `task=imdb|...` (a task with single texts), `path=FOLDER`, `model=`, `data=`, `seeds=3`, `examples=8192` (the budget), `demo`,
    `smoke`.
    """
    return ablations.base(_words(arg))


def sweep(arg: str = ""):
    """Return every truncation at every length."""
    chosen, settings = _words(arg), []
    for length in SHORT if chosen["smoke"] else LENGTHS:
        truncations = [{"truncation": "head"}, {"truncation": "tail"}, {"truncation": "head_tail", "truncation_head": length // 4}]
        settings += sweeps.product([{"max_length": length}], truncations)
    return sweeps.product(settings, ablations.seeds(chosen))
