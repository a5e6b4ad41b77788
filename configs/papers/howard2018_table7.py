"""Methods to fine-tune the classifier: Howard and Ruder 2018, table 7. No cell can be run yet."""

from configs.papers import howard2018_table6 as howard
from research.ablation.report.published import Table

ROWS = {
    "From scratch": (9.93, 13.36, 6.81),
    "Full": (6.87, 6.86, 5.81),
    "Full + discr": (5.57, 6.21, 5.62),
    "Last": (6.49, 16.09, 8.38),
    "Chain-thaw": (5.39, 6.71, 5.90),
    "Freez": (6.37, 6.86, 5.81),
    "Freez + discr": (5.39, 5.86, 6.04),
    "Freez + stlr": (5.04, 6.02, 5.35),
    "Freez + cos": (5.70, 6.38, 5.29),
    "Freez + discr + stlr": (5.00, 5.69, 5.38),
}


def published() -> Table:
    """Return the table of methods to fine-tune the classifier."""
    return howard.table(7, "classifier fine-tuning", ROWS)
