"""Adapters against full fine-tuning on GLUE with BERT-large: Houlsby et al. 2019, table 1.

python -m research.ablation --config=configs/papers/houlsby2019_table1.py                 # MRPC and SST-2; the other tasks are missing
"""

from configs import papers
from research.ablation.report.published import PublishedCell, Table

TITLE = 'Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", ICML 2019.'
NOTES = (
    "The paper selects the learning rate (3e-5, 3e-4, 3e-3) and the epochs (3, 20) on dev for each task, takes the best of 5 runs, and "
    "does not print the selected values. Here adapters train with 3e-4, for 20 epochs on MRPC and 3 on SST-2.",
    "The fine-tuning numbers are from Devlin et al. 2019, with the best of four learning rates on dev; here the rate is 2e-5, one of them.",
    "Layer norms are trained together with the adapters, as in the paper.",
)
COLUMNS = ("CoLA", "SST", "MRPC", "STS-B", "QQP", "MNLI-m", "MNLI-mm", "QNLI", "RTE", "Total")
METRICS = ("matthews", "accuracy", "f1", "spearman", "f1", "accuracy", "accuracy", "accuracy", "accuracy", "average")
ROWS = {
    "BERT-large": (60.5, 94.9, 89.3, 87.6, 72.1, 86.7, 85.9, 91.1, 70.1, 80.4),
    "Adapters (8-256)": (59.5, 94.0, 89.5, 86.9, 71.8, 84.9, 85.1, 90.7, 71.5, 80.0),
    "Adapters (64)": (56.9, 94.2, 89.6, 87.3, 71.8, 85.3, 84.6, 91.4, 68.8, 79.6),
}
METHODS = {"BERT-large": {"method": "full"}, "Adapters (64)": {"method": "houlsby+layernorm"}}
TASKS = {"SST": "sst2", "MRPC": "mrpc"}
HIDDEN = "the paper's SST-2 test labels are hidden; the test split here is GLUE's dev split"
MISSING = {
    "CoLA": "the task CoLA",
    "STS-B": "the task STS-B (regression)",
    "QQP": "the task QQP",
    "MNLI-m": "the task MNLI",
    "MNLI-mm": "the task MNLI",
    "QNLI": "the task QNLI",
    "RTE": "the task RTE",
    "Total": "all tasks of GLUE",
}


def base(arg: str = ""):
    """Return the base config. Words: see `configs.papers`."""
    return papers.base(
        papers.words(arg, "bert-large"), "mrpc", batch_size=32, learning_rate=2e-5, pooling="pooler", warmup_percent=10.0, houlsby__size=64
    )


def sweep(arg: str = ""):
    """Return fine-tuning and adapters of size 64 on the available tasks."""
    chosen, settings = papers.words(arg, "bert-large"), []
    for task, epochs in (("mrpc", 20.0), ("sst2", 3.0)):
        settings.append(({"task": task, "method": "full"}, {"learning_rate": 2e-5, "total_epochs": 3.0}))
        settings.append(({"task": task, "method": "houlsby+layernorm"}, {"learning_rate": 3e-4, "total_epochs": epochs}))
    return papers.seeded(chosen, papers.recipes(chosen, settings))


def published() -> Table:
    """Return the table: scores on GLUE's test split from the GLUE server."""
    cells = []
    for row, values in ROWS.items():
        for column, metric, value in zip(COLUMNS, METRICS, values, strict=True):
            arguments = (
                {"blocked_by": (MISSING[column],)} if column in MISSING else {"blocked_by": ("selection of the best setting on dev",)}
            )
            if column in TASKS and row in METHODS:
                arguments = {"setting": {"task": TASKS[column], **METHODS[row]}, "known_deviation": HIDDEN if column == "SST" else ""}
            cells.append(PublishedCell(f"{row}, {column}", value, f"Table 1, {row}, {column}", metric=metric, **arguments))
    return Table(
        "Houlsby et al. 2019", TITLE, "table 1, adapters on GLUE", "accuracy", 1.0, tuple(cells), examples=papers.EXAMPLES, notes=NOTES
    )
