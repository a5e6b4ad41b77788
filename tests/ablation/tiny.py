"""A sweep of tiny runs of every kind: runs that differ in the seed, the learning rate or both, and runs that are trained alone."""

from research.ablation import sweep as sweeps
from research.config import fields

RATES = sweeps.over("learning_rate", [1e-4, 3e-4, 1e-3, 3e-3])


def base(arg: str = ""):
    """Return the base config. Words: `runs=100`, `steps=24` (of each run)."""
    chosen = _words(arg)
    c = fields.finish(fields.base("trec", chosen), chosen | {"smoke": "yes"})
    steps = int(chosen["steps"])
    return fields.override(c, {"total_steps": steps, "checkpoint_steps": max(1, steps // 4), "eval_steps": max(1, steps // 3)})


def sweep(arg: str = ""):
    """Return about `runs` runs, with the same share of each of the four parts."""
    probes = sweeps.product([{"method": "linear_probe"}], sweeps.seeds(16))
    loras = sweeps.product([{"method": "lora"}], sweeps.seeds(6), RATES)
    fulls = sweeps.product([{"method": "full"}], sweeps.over("learning_rate", [k * 1e-4 for k in range(1, 17)]))
    alone = sweeps.product([{"method": "linear_probe"}], sweeps.over("data.seed", range(1, 45)))
    share = int(_words(arg)["runs"]) / 100
    return sweeps.chain(*(part[: max(1, round(share * len(part)))] for part in (probes, loras, fulls, alone)))


def _words(arg: str) -> dict[str, str]:
    return fields.words(arg, runs="100", steps="24")
