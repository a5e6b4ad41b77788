"""How large adapters must be: numbers in the text of Houlsby et al. 2019. No cell can be run yet."""

from configs.papers import houlsby2019_table1 as houlsby
from research.ablation.report.published import PublishedCell, Table

MNLI, SQUAD = ("the task MNLI",), ("question answering (SQuAD)",)
CELLS = (
    PublishedCell("top layer only, MNLI-m dev, BERT-base", 77.8, "section 3.4, text (± 0.1 there)", split="dev", blocked_by=MNLI),
    PublishedCell("size 64, MNLI-m dev, BERT-base", 83.7, "section 3.4, text (± 0.1 there)", split="dev", blocked_by=MNLI),
    PublishedCell("fine-tuning, MNLI-m dev, BERT-base", 84.4, "section 3.4, text (± 0.02 there)", split="dev", blocked_by=MNLI),
    *(
        PublishedCell(f"size {size}, mean over GLUE, dev", value, "section 3.6, text", split="dev", blocked_by=("all tasks of GLUE",))
        for size, value in ((8, 86.2), (64, 85.8), (256, 85.7))
    ),
    *(
        PublishedCell(f"{row}, SQuAD v1.1 dev", value, "section 3.5, text", split="dev", metric="f1", blocked_by=SQUAD)
        for row, value in (("size 64", 90.4), ("size 2", 89.9), ("fine-tuning", 90.7))
    ),
)
NOTES = ("The paper does not say what the ± in the text measures; it is not treated as a standard deviation.",)


def published() -> Table:
    """Return the table: accuracies, and F1 for SQuAD."""
    return Table("Houlsby et al. 2019", houlsby.TITLE, "sections 3.4 to 3.6, adapter size", "accuracy", 0.5, CELLS, notes=NOTES)
