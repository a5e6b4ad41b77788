"""LoRA against full fine-tuning on GLUE with RoBERTa-base: Hu et al. 2022, table 2.

python -m research.ablation --config=configs/papers/hu2022_table2.py                      # SST-2 and MRPC; the other tasks are missing
"""

from configs import papers
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table

TITLE = 'Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.'
NOTES = (
    "LoRA's recipe is from the authors' scripts (rank 8, alpha 16, weight decay 0.1); their batch size of 16 is per device.",
    "The fine-tuning numbers are from Liu et al. 2019; the recipe is fairseq's for RoBERTa-large.",
    "Both papers report the median of 5 runs on GLUE's dev split, each at its best epoch on the same split. Here the runs on MRPC also "
    "report their best epoch on dev, but means are compared; on SST-2 the checkpoint is selected on a tenth of train.",
)
COLUMNS = ("MNLI", "SST-2", "MRPC", "CoLA", "QNLI", "QQP", "RTE", "STS-B")
METRICS = ("accuracy", "accuracy", "accuracy", "matthews", "accuracy", "accuracy", "accuracy", "pearson")
ROWS = {
    "FT": ((87.6, None), (94.8, None), (90.2, None), (63.6, None), (92.8, None), (91.9, None), (78.7, None), (91.2, None)),
    "LoRA": ((87.5, 0.3), (95.1, 0.2), (89.7, 0.7), (63.4, 1.2), (93.3, 0.3), (90.8, 0.1), (86.6, 0.7), (91.5, 0.2)),
}
METHODS = {"FT": "full", "LoRA": "lora"}
TASKS = {"SST-2": ("sst2", "test"), "MRPC": ("mrpc", "dev")}  # our split that is GLUE's dev split
FROM_MNLI = "the paper's LoRA on MRPC starts from LoRA parameters trained on MNLI"

ROBERTA = {"learning_rate": 1e-5, "total_epochs": 10.0, "beta2": 0.98, "epsilon": 1e-6, "clip_norm": 0.0}
SETTINGS = [
    ({"task": "sst2", "method": "full"}, {**ROBERTA, "batch_size": 32}),
    ({"task": "mrpc", "method": "full"}, {**ROBERTA, "batch_size": 16}),
    ({"task": "sst2", "method": "lora"}, {"learning_rate": 5e-4, "total_epochs": 60.0, "batch_size": 16}),
    ({"task": "mrpc", "method": "lora"}, {"learning_rate": 4e-4, "total_epochs": 30.0, "batch_size": 16}),
]


def base(arg: str = ""):
    """Return the base config. Words: see `configs.papers`."""
    return papers.base(
        papers.words(arg, "roberta-base"),
        "sst2",
        max_length=512,
        learning_rate=5e-4,
        pooling="pooler",
        warmup_percent=6.0,
        weight_decay=0.1,
        lora__rank=8,
        lora__alpha=16.0,
    )


def sweep(arg: str = "") -> list[sweeps.Overrides]:
    """Return both methods on the available tasks, each with its recipe."""
    chosen = papers.words(arg, "roberta-base")
    return papers.seeded(chosen, papers.recipes(chosen, SETTINGS))


def published() -> Table:
    """Return the table: scores on GLUE's dev split."""
    cells = []
    for row, values in ROWS.items():
        for column, metric, (value, sd) in zip(COLUMNS, METRICS, values, strict=True):
            task, split = TASKS.get(column, ("", "dev"))
            arguments = {"setting": {"task": task, "method": METHODS[row]}} if task else {"blocked_by": (f"the task {column}",)}
            known_deviation = FROM_MNLI if (row, column) == ("LoRA", "MRPC") else ""
            source = f"Table 2, RoBERTa-base ({row}), {column}"
            cells.append(
                PublishedCell(
                    f"{row}, {column}", value, source, sd=sd, n=5, metric=metric, split=split, known_deviation=known_deviation, **arguments
                )
            )
    return Table("Hu et al. 2022", TITLE, "table 2, LoRA on GLUE", "accuracy", 0.5, tuple(cells), examples=papers.EXAMPLES, notes=NOTES)
