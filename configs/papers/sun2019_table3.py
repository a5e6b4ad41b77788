"""Which layer's hidden states are best for classification when BERT is fine-tuned: Sun et al. 2019, table 3.

python -m research.ablation --config=configs/papers/sun2019_table3.py

The classifier reads the hidden state of the first token in one layer. The layers above it are unused, and frozen.
"""

from configs import papers
from configs.papers import sun2019_table2 as sun
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table

LAYERS = (11.07, 9.81, 9.29, 8.66, 7.83, 6.83, 6.83, 6.41, 6.04, 5.70, 5.46, 5.42)  # layer 0 is the first above the embeddings
JOINED = {
    "First 4 Layers + concat": 8.69,
    "First 4 Layers + mean": 9.09,
    "First 4 Layers + max": 8.76,
    "Last 4 Layers + concat": 5.43,
    "Last 4 Layers + mean": 5.44,
    "Last 4 Layers + max": 5.42,
    "All 12 Layers + concat": 5.44,
}
LAST4 = {"method": "full+last4_concat"}


def base(arg: str = ""):
    """Return the base config. Words: see `configs.papers`."""
    return sun.recipe(papers.words(arg, "bert-base"), truncation="head_tail", truncation_head=128, pooling="first")


def sweep(arg: str = "") -> list[sweeps.Overrides]:
    """Return each layer, and the concatenation of the last four."""
    chosen = papers.words(arg, "bert-base")
    count = 2 if chosen["smoke"] else len(LAYERS)
    settings = [_layer(number) | {"freeze": _above(number, count)} for number in range(count)]
    return papers.seeded(chosen, [*settings, LAST4])


def _layer(number: int) -> sweeps.Overrides:
    return {"method": "full+chosen_layer", "feature_layer": number + 1}


def _above(number: int, count: int) -> str:
    return ",".join(f"encoder/layer_{i}" for i in range(number + 1, count))


def published() -> Table:
    """Return the table: test errors on IMDb."""
    cells = [PublishedCell(f"Layer-{i}", error, f"Table 3, Layer-{i}", _layer(i)) for i, error in enumerate(LAYERS)]
    for row, error in JOINED.items():
        missing = ("a classifier on these layers with this pooling",)
        arguments = {"setting": LAST4} if row == "Last 4 Layers + concat" else {"blocked_by": missing}
        cells.append(PublishedCell(row, error, f"Table 3, {row}", **arguments))
    return Table(
        "Sun et al. 2019", sun.TITLE, "table 3, layer choice", "error", 0.5, tuple(cells), examples=papers.EXAMPLES, notes=sun.NOTES
    )
