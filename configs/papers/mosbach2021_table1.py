"""Why some seeds of fine-tuning fail: Mosbach et al. 2021, table 1, over 25 seeds. The quantity of interest is the standard deviation.

python -m research.ablation --config=configs/papers/mosbach2021_table1.py                 # MRPC; RTE and CoLA are missing
"""

from configs import papers
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table

TITLE = 'Mosbach, Andriushchenko and Klakow, "On the Stability of Fine-tuning BERT", ICLR 2021.'
NOTES = (
    "The recipes are from the authors' configs: without bias correction, 3 epochs and the parameters of the last step; with bias "
    "correction, 20 epochs with an evaluation every 76 steps.",
    "As in the paper, the checkpoint is selected on dev and the dev score is reported. The paper selects by the mean of accuracy and F1, "
    "here F1 alone selects.",
)
COLUMNS = ("RTE", "MRPC", "CoLA")
METRICS = ("accuracy", "f1", "matthews")
ROWS = {  # mean and standard deviation
    "Devlin et al. (2019)": ((50.9, 4.5), (84.0, 3.9), (45.6, 25.6)),
    "Ours (Mosbach et al.)": ((67.3, 2.7), (90.3, 0.8), (62.1, 1.8)),
}
SETTINGS = {
    "Devlin et al. (2019)": ({"bias_correction": False}, {"total_epochs": 3.0, "eval_percent": 100.0}),
    "Ours (Mosbach et al.)": ({"bias_correction": True}, {"total_epochs": 20.0, "eval_steps": 76}),
}
RUNS = 25


def base(arg: str = ""):
    """Return the base config. Words: see `configs.papers`; `seeds=25`."""
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
    """Return BERT's original recipe and the paper's recipe."""
    chosen = papers.words(arg, "bert-large", RUNS)
    return papers.seeded(chosen, papers.recipes(chosen, list(SETTINGS.values())))


def published() -> Table:
    """Return the table: scores on GLUE's dev split."""
    cells = []
    for row, values in ROWS.items():
        for column, metric, (value, sd) in zip(COLUMNS, METRICS, values, strict=True):
            arguments = {"setting": SETTINGS[row][0]} if column == "MRPC" else {"blocked_by": (f"the task {column}",)}
            source = f"Table 1, {row}, {column}, quoted from memory, to be checked"
            cells.append(PublishedCell(f"{row}, {column}", value, source, sd=sd, n=RUNS, metric=metric, split="dev", **arguments))
    return Table("Mosbach et al. 2021", TITLE, "table 1, stability", "accuracy", 1.0, tuple(cells), examples=papers.EXAMPLES, notes=NOTES)
