"""Which part of a long text BERT should read: Sun et al. 2019, table 2.

python -m research.ablation --config=configs/papers/sun2019_table2.py                     # IMDb from TensorFlow Datasets, BERT-base
python -m research.ablation --config=configs/papers/sun2019_table2.py:data=files,path=FOLDER,seeds=3
"""

from configs import papers
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table
from research.config import fields

TITLE = 'Sun, Qiu, Xu and Huang, "How to Fine-Tune BERT for Text Classification?", CCL 2019.'
NOTES = (
    "The recipe is from sections 5.1 and 5.2; the optimizer, BERT's original one without bias correction, is from the authors' code.",
    "The paper gives no standard deviations and no number of runs.",
    "The authors' code evaluates on the test split after each epoch; here the checkpoint is selected on a tenth of train.",
    "The authors' code clips the gradient norm of each parameter separately; here the global norm is clipped.",
)


def recipe(chosen: dict[str, str], **changes):
    """Return the config that tables 2 to 4 share, with `changes`: BERT-base on IMDb, 512 tokens."""
    defaults = {
        "max_length": 512,
        "batch_size": 24,
        "learning_rate": 2e-5,
        "schedule": "slanted_triangular",
        "warmup_percent": 10.0,
        "total_epochs": 4.0,
        "pooling": "pooler",
        "epsilon": 1e-6,
        "bias_correction": False,
    }
    c = papers.base(chosen, "imdb", **(defaults | changes))
    return fields.override(c, {"truncation_head": 8}) if chosen["smoke"] else c


def base(arg: str = ""):
    """Return the base config. Words: see `configs.papers`."""
    return recipe(papers.words(arg, "bert-base"), truncation_head=128)


def sweep(arg: str = ""):
    """Return the three truncations."""
    return papers.seeded(papers.words(arg, "bert-base"), sweeps.over("truncation", ("head", "tail", "head_tail")))


ROWS = (
    ("head-only", 5.63, 2.58, "head"),
    ("tail-only", 5.44, 3.17, "tail"),
    ("head+tail", 5.42, 2.43, "head_tail"),
    ("hier. mean", 5.89, 2.83, ""),
    ("hier. max", 5.71, 2.47, ""),
    ("hier. self-attention", 5.49, 2.65, ""),
)


def published() -> Table:
    """Return the table: test errors on IMDb and Sogou."""
    hierarchical = ("a hierarchical encoder of long texts",)
    cells = []
    for row, imdb, sogou, truncation in ROWS:
        arguments = {"setting": {"truncation": truncation}} if truncation else {"blocked_by": hierarchical}
        cells.append(PublishedCell(f"{row}, IMDb", imdb, f"Table 2, {row}, IMDb", **arguments))
        blocked_by = ("the task Sogou News", "a Chinese BERT", *(() if truncation else hierarchical))
        cells.append(PublishedCell(f"{row}, Sogou", sogou, f"Table 2, {row}, Sogou", blocked_by=blocked_by))
    return Table("Sun et al. 2019", TITLE, "table 2, truncation", "error", 0.5, tuple(cells), examples=papers.EXAMPLES, notes=NOTES)
