"""Which layer's states say most of a text, when BERT is fine-tuned: Sun et al. 2019, table 3.

python -m research.ablation --config=configs/papers/sun2019_table3.py

The classifier reads the first token's state in a layer; what stands above it does nothing, and is frozen.
"""

from configs import papers
from configs.papers import sun2019_table2 as sun
from research.ablation import sweep as sweeps
from research.ablation.report.published import PublishedCell, Table

LAYERS = (11.07, 9.81, 9.29, 8.66, 7.83, 6.83, 6.83, 6.41, 6.04, 5.70, 5.46, 5.42)  # the paper's layer 0 is the one above the embeddings
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
    """Words: see `configs.papers`."""
    return sun.recipe(papers.words(arg, "bert-base"), truncation="head_tail", truncation_head=128, pooling="first")


def sweep(arg: str = "") -> list[sweeps.Overrides]:
    """Each layer, and the last four joined."""
    chosen = papers.words(arg, "bert-base")
    count = 2 if chosen["smoke"] else len(LAYERS)
    settings = [_layer(number) | {"freeze": _above(number, count)} for number in range(count)]
    return papers.seeded(chosen, [*settings, LAST4])


def _layer(number: int) -> sweeps.Overrides:
    return {"method": "full+chosen_layer", "feature_layer": number + 1}


def _above(number: int, count: int) -> str:
    return ",".join(f"encoder/layer_{i}" for i in range(number + 1, count))


def published() -> Table:
    """Test errors on IMDb."""
    cells = [PublishedCell(f"Layer-{i}", error, f"Table 3, Layer-{i}", _layer(i)) for i, error in enumerate(LAYERS)]
    for row, error in JOINED.items():
        runs = {"setting": LAST4} if row == "Last 4 Layers + concat" else {"blocked_by": ("a reader of those layers, joined or pooled",)}
        cells.append(PublishedCell(row, error, f"Table 3, {row}", **runs))
    return Table(
        "Sun et al. 2019", sun.TITLE, "table 3, layer choice", "error", 0.5, tuple(cells), examples=papers.EXAMPLES, notes=sun.NOTES
    )
