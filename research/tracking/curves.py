"""`curves.png`: loss, metric and learning rate of a run by step."""

from pathlib import Path

from research import storage
from research.tasks.base import Task
from research.tracking import writer


def draw(workdir: Path, title: str, task: Task, best_step: int | None = None) -> None:
    """Draw loss, the task's metric and learning rate from metrics.jsonl into `curves.png`, and mark `best_step`, whose parameters were
    kept."""
    from matplotlib.figure import Figure

    lines = writer.read_metrics(workdir)
    figure = Figure(figsize=(12, 3.8), layout="constrained")
    figure.suptitle(title, fontsize=11, wrap=True)
    loss, score, rate = figure.subplots(1, 3)
    for axis, name in ((loss, "loss"), (score, task.metric)):
        for split, style in (("train", {"alpha": 0.75, "linewidth": 1.2}), ("dev", {"marker": "o", "markersize": 4})):
            _plot(axis, lines, f"{split}/{name}", label=split, **style)
        _mark(axis, lines, f"dev/{name}", best_step)
    _plot(rate, lines, "learning_rate", color="tab:green")
    for axis, name in ((loss, "loss"), (score, task.titles[task.metric]), (rate, "learning rate")):
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
        axis.locator_params(axis="x", nbins=5, integer=True)
        axis.margins(x=0.02)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(fontsize=8)
    if score.lines and task.in_percent:
        low, high = score.get_ylim()
        score.set_ylim(max(low, 0) if low > -0.2 else low, min(high, 1))
    rate.yaxis.set_major_formatter(lambda value, _: f"{value:.1e}" if value else "0")
    with storage.atomic_write(workdir / "curves.png") as part:
        figure.savefig(part, dpi=110, format="png")


def _plot(axis, lines: list[dict[str, float]], name: str, **style) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if len(points) == 1:
        style = {"marker": "o", "markersize": 4} | style
    if points:
        axis.plot(*zip(*points, strict=True), **style)


def _mark(axis, lines: list[dict[str, float]], name: str, best_step: int | None) -> None:
    """Mark the value of `name` at `best_step`."""
    point = [(line["step"], line[name]) for line in lines if name in line and line["step"] == best_step]
    if point:
        axis.axvline(best_step, color="0.5", linestyle="--", linewidth=1)
        axis.plot(*point[0], marker="*", markersize=13, color="tab:red", linestyle="", zorder=5, label=f"kept: step {best_step:,}")
