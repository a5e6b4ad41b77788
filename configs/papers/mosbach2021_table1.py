"""Why some seeds of fine-tuning fail: Mosbach et al. 2021, table 1, over 25 seeds. What to look at is the deviation.

python -m research.ablation --config=configs/papers/mosbach2021_table1.py                 # MRPC; RTE and CoLA wait
"""

from configs import papers
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table

TITLE = 'Mosbach, Andriushchenko and Klakow, "On the Stability of Fine-tuning BERT", ICLR 2021.'
NOTES = (
    "The recipes are those of the authors' configs: without correction of the bias, 3 epochs and the last step's parameters; with it, 20 "
    "epochs, evaluated every 76 steps.",
    "As in the paper the checkpoint is chosen on dev and dev is reported; there by the mean of accuracy and F1, here by F1.",
)
COLUMNS = ("RTE", "MRPC", "CoLA")
METRICS = ("accuracy", "f1", "matthews")
ROWS = {  # mean and deviation
    "Devlin et al. (2019)": ((50.9, 4.5), (84.0, 3.9), (45.6, 25.6)),
    "Ours (Mosbach et al.)": ((67.3, 2.7), (90.3, 0.8), (62.1, 1.8)),
}
SETTINGS = {
    "Devlin et al. (2019)": ({"bias_correction": False}, {"total_epochs": 3.0, "eval_percent": 100.0}),
    "Ours (Mosbach et al.)": ({"bias_correction": True}, {"total_epochs": 20.0, "eval_steps": 76}),
}
RUNS = 25


def base(arg: str = ""):
    """Words: see `configs.papers`; `seeds=25`."""
    return papers.base(
        papers.words(arg, "bert-large", RUNS),
        "mrpc",
        max_length=128,
        batch_size=16,
        learning_rate=2e-5,
        pooling="pooler",
        warmup_percent=10.0,
        weight_decay=0.01,
        epsilon=1e-6,
    )


def sweep(arg: str = "") -> list[sweeps.Overrides]:
    """BERT's own recipe, and the paper's."""
    chosen = papers.words(arg, "bert-large", RUNS)
    return papers.seeded(chosen, papers.recipes(chosen, list(SETTINGS.values())))


def published() -> Table:
    """GLUE's dev split."""
    cells = []
    for row, values in ROWS.items():
        for column, metric, (value, sd) in zip(COLUMNS, METRICS, values, strict=True):
            state = {"setting": SETTINGS[row][0]} if column == "MRPC" else {"blocked_by": (f"the task {column}",)}
            source = f"Table 1, {row}, {column}, quoted from memory, to be checked"
            cells.append(PublishedCell(f"{row}, {column}", value, source, sd=sd, n=RUNS, metric=metric, split="dev", **state))
    return Table("Mosbach et al. 2021", TITLE, "table 1, stability", "accuracy", 1.0, tuple(cells), examples=papers.EXAMPLES, notes=NOTES)
