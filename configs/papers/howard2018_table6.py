"""Benefit of fine-tuning the language model: Howard and Ruder 2018, table 6. No cell can be run yet."""

from research.ablation.report.published import PublishedCell, Table

TITLE = 'Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018.'
TASKS = ("IMDb", "TREC-6", "AG")
MISSING = ("a pretrained AWD-LSTM language model",)
NOTES = ("Errors on the validation split, of one (forward) model. The paper gives no standard deviations and no number of runs.",)
ROWS = {
    "No LM fine-tuning": (6.99, 6.38, 6.09),
    "Full": (5.86, 6.54, 5.61),
    "Full + discr": (5.55, 6.36, 5.47),
    "Full + discr + stlr": (5.00, 5.69, 5.38),
}


def table(number: int, name: str, rows: dict[str, tuple[float, ...]]) -> Table:
    """Return table `number`: validation errors on the three tasks."""
    cells = [
        PublishedCell(f"{row}, {task}", value, f"Table {number}, {row}, {task}", split="dev")
        for row, values in rows.items()
        for task, value in zip(TASKS, values, strict=True)
    ]
    return Table("Howard and Ruder 2018", TITLE, f"table {number}, {name}", "error", 0.5, tuple(cells), blocked_by=MISSING, notes=NOTES)


def published() -> Table:
    """Return the table of methods to fine-tune the language model."""
    return table(6, "language-model fine-tuning", ROWS)
