"""Draw configs/ablations/freezing.png from the table in configs/ablations/freezing.md.

python -m tests.benchmarks.freezing_figure
"""

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

FOLDER = Path(__file__).parents[2] / "configs" / "ablations"
BLUE, GREY, INK = "#2a6fbb", "#9aa5b1", "#27313b"
TICKS = ("nothing", "embed-\ndings", *(f"and {i}\nlayer{'s' * (i > 1)}" for i in range(1, 6)), "all but\nthe head")


def table(text: str) -> list[dict[str, str]]:
    """Return the rows of the first Markdown table in `text`, each as column name -> cell."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| ")]
    return [dict(zip(lines[0], cells, strict=True)) for cells in lines[1:]]


def draw_scores(axes: Axes, rows: list[dict[str, str]]) -> None:
    """Draw mean test accuracy with its 95% interval over seeds; a line joins the settings that differ in depth alone."""
    means = [float(row["test"].split(" ± ")[0]) for row in rows]
    ends = [tuple(map(float, row["95% interval"].split(" to "))) for row in rows]
    axes.plot(range(1, 7), means[1:7], color=BLUE, linewidth=1.5)
    for x, (mean, (low, high)) in enumerate(zip(means, ends, strict=True)):
        face = BLUE if 0 < x < 7 else "white"
        axes.errorbar(x, mean, [[mean - low], [high - mean]], fmt="o", color=BLUE, mfc=face, ms=7, mew=1.5, capsize=4, elinewidth=1.5)
        axes.annotate(f"{mean:.1f}", (x, high), (0, 6), textcoords="offset points", ha="center", color=INK, fontsize=10)
    notes = {0: "full\nrate 5e-5", 7: "linear_probe\nrate 0.01, mean of\nthe last states"}
    for x, note in notes.items():
        style = {"ha": "center", "va": "top", "color": INK, "fontsize": 9, "bbox": {"color": "white", "pad": 1}}
        axes.annotate(note, (x, ends[x][0]), (0, -9), textcoords="offset points", **style)
    axes.text(3.5, 93.1, "top_k, rate 2e-4", ha="center", color=BLUE, fontsize=10)
    axes.set(ylabel="test accuracy in percent", ylim=(86.3, 98.3))
    axes.set_title("MiniLM on TREC-6: mean and 95% interval over five seeds", loc="left", color=INK, fontsize=12, pad=10)


def draw_cost(axes: Axes, rows: list[dict[str, str]]) -> None:
    """Draw the FLOPs of all training steps relative to those of full fine-tuning."""
    costs = [float(row["relative to the first"]) for row in rows]
    axes.bar(range(len(costs)), costs, width=0.62, color=GREY)
    for x, cost in enumerate(costs):
        axes.annotate(f"{cost:.2f}", (x, cost), (0, 4), textcoords="offset points", ha="center", color=INK, fontsize=10)
    axes.set(ylabel="training FLOPs\nrelative to full", ylim=(0, 1.3), yticks=(0, 0.5, 1))
    axes.set_xticks(range(len(rows)), TICKS, fontsize=10)
    axes.set_xlabel("frozen, from the bottom of the encoder's 6 layers", color=INK, fontsize=10, labelpad=6)


def main() -> None:
    """Write `freezing.png`."""
    rows = table((FOLDER / "freezing.md").read_text(encoding="utf8"))
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.3, 1))
    draw_scores(above, rows)
    draw_cost(below, rows)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=10)
        axes.yaxis.label.set_size(10)
        axes.grid(axis="y", color="#e4e8ec", linewidth=0.8)
        axes.set_axisbelow(True)
    figure.savefig(FOLDER / "freezing.png", dpi=160, metadata={"Software": None})


if __name__ == "__main__":
    main()
