"""`confusion.png`: the confusion matrix of a run."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from research import storage

NUMBERED = 25  # maximum number of classes for which cells show counts; smaller cells would be unreadable


def draw(path: Path, confusion: np.ndarray, labels: Sequence[str], title: str) -> None:
    """Draw a confusion matrix [C, C] with the true classes as rows. Colour shows a cell's share of its row, the number its count."""
    from matplotlib.figure import Figure

    counts = np.asarray(confusion, np.int64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = np.clip(0.45 * len(labels), 2.5, 14)
    size = np.clip(330 / len(labels), 4, 9)
    figure = Figure(figsize=(side + 2.6, side + 1.9), layout="constrained")
    figure.suptitle(title, fontsize=10, wrap=True)
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    names = [label if len(label) <= 24 else f"{label[:23]}…" for label in labels]
    axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size, parse_math=False)
    axis.set_yticks(range(len(names)), names, fontsize=size, parse_math=False)
    axis.set_xlabel("prediction")
    axis.set_ylabel("truth")
    if len(labels) <= NUMBERED:
        for row, column in np.ndindex(counts.shape):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axis.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=colour, fontsize=size)
    figure.colorbar(image, ax=axis, label="share of the class's examples", shrink=0.8)
    with storage.atomic_write(path) as part, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # the font may lack the script of a label
        figure.savefig(part, dpi=110, format="png")
