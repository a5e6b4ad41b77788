"""What the methods of `research/adapt` may be told, with the defaults of their papers. A method without options has no lines here."""

from ml_collections import ConfigDict


def add(c: ConfigDict) -> None:
    """Adds the options of every method to `c`."""
    c.top_layers = 2  # top_k: layers that train
    c.unfreeze_layers = 1  # gradual_unfreezing: stages that open in a phase
    c.llrd_decay = 0.95  # llrd: a stage's rate as a part of that of the stage above
    c.discriminative_factor = 2.6  # discriminative: how many times the rate of a stage is that of the stage below

    c.lora = ConfigDict()
    c.lora.rank = 8  # of the matrix that is added
    c.lora.alpha = 16.0  # what is added is scaled by alpha / rank
    c.lora.targets = "attention/query,attention/value"  # modules with a kernel: patterns apart by commas
    c.lora.dropout = 0.0  # of what enters the low-rank path
    c.lora.rank_stabilised = False  # scale by alpha / sqrt(rank) instead
