"""Layer-wise learning rate decay: Sun et al. 2019, table 4.

python -m research.ablation --config=configs/papers/sun2019_table4.py
"""

from configs import papers
from configs.papers import sun2019_table2 as sun
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table

DECAYS = (1.00, 0.95, 0.90, 0.85)
ERRORS = {2.5e-5: (5.52, 5.46, 5.44, 5.58), 2.0e-5: (5.42, 5.40, 5.52, 5.65)}


def base(arg: str = ""):
    """Return the base config. Words: see `configs.papers`."""
    return sun.recipe(papers.words(arg, "bert-base"), method="llrd", truncation="head_tail", truncation_head=128)


def sweep(arg: str = ""):
    """Return every learning rate of the top layer with every decay from layer to layer."""
    settings = sweeps.product(sweeps.over("learning_rate", ERRORS), sweeps.over("llrd_decay", DECAYS))
    return papers.seeded(papers.words(arg, "bert-base"), settings)


def published() -> Table:
    """Return the table: test errors on IMDb."""
    cells = [
        PublishedCell(
            f"{rate:g}, decay {decay:.2f}", error, f"Table 4, {rate:.1e}, {decay:.2f}", {"learning_rate": rate, "llrd_decay": decay}
        )
        for rate, errors in ERRORS.items()
        for decay, error in zip(DECAYS, errors, strict=True)
    ]
    notes = (*sun.NOTES, "Here the parameters above the last layer have the full learning rate; the paper does not say.")
    return Table(
        "Sun et al. 2019", sun.TITLE, "table 4, layer-wise decay", "error", 0.5, tuple(cells), examples=papers.EXAMPLES, notes=notes
    )
