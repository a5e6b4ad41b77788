"""Plot of a run's curves, checked on the matplotlib figure."""

import json

import matplotlib.figure
import numpy as np
import pytest
from matplotlib.image import imread

from research.tasks.classification import Classification
from research.tracking import curves

TASK = Classification("mail", metric="recall", labels=("ham", "spam"), positive="ham")


def write(folder, steps, dev=(), rate=1e-5):
    """Write the metrics of `steps` steps, with dev scores at the steps of `dev`."""
    lines = [{"step": s, "train/loss": 3.0 / s, "train/recall": 1 - 1 / s, "learning_rate": rate / s} for s in range(1, steps + 1)]
    lines += [{"step": step, "dev/loss": 1.0, "dev/recall": score} for step, score in dev]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """Return a function that draws metrics and returns the figure as it was saved."""
    figures = []
    savefig = matplotlib.figure.Figure.savefig
    monkeypatch.setattr(matplotlib.figure.Figure, "savefig", lambda self, *a, **o: (figures.append(self), savefig(self, *a, **o)))

    def draw(*args, best_step=None, **options):
        write(tmp_path, *args, **options)
        curves.draw(tmp_path, "trec · minilm · lora · seed 3", TASK, best_step)
        return figures[-1]

    return draw


def test_the_plot_has_a_title_and_shows_train_dev_and_the_best_step(drawn):
    figure = drawn(100, dev=[(50, 0.9), (100, 0.8)], best_step=50)
    assert figure.get_suptitle() == "trec · minilm · lora · seed 3"
    loss, score, rate = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["loss", "recall of 'ham'", "learning rate"]
    for axis, value in ((loss, 1.0), (score, 0.9)):
        assert [text.get_text() for text in axis.get_legend().get_texts()] == ["train", "dev", "kept: step 50"]
        assert (axis.lines[-1].get_xdata(), axis.lines[-1].get_ydata()) == ([50], [value])
    assert rate.get_legend() is None and len(rate.lines) == 1


def test_axes_end_with_the_data(drawn):
    figure = drawn(100, dev=[(50, 1.0), (100, 0.99)], best_step=50)
    score = figure.axes[1]
    assert score.get_ylim()[1] == 1 and score.get_ylim()[0] >= 0
    for axis in figure.axes:
        (left, right), points = axis.get_xlim(), np.concatenate([line.get_xdata() for line in axis.lines if len(line.get_xdata()) > 2])
        assert points.max() - points.min() > 0.9 * (right - left)


def test_learning_rates_are_labelled_in_powers_of_ten_and_panels_do_not_overlap(drawn):
    figure = drawn(3000, dev=[(3000, 0.9)], best_step=3000, rate=2e-5)
    labels = [label.get_text() for label in figure.axes[2].get_yticklabels()]
    assert all(label == "0" or "e-" in label for label in labels), labels
    boxes = [axis.get_tightbbox() for axis in figure.axes]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_one_step_is_drawn_and_no_metrics_give_empty_axes(drawn, tmp_path):
    coloured = lambda: np.count_nonzero(np.ptp(imread(tmp_path / "curves.png")[..., :3], axis=-1) > 0.3)  # noqa: E731
    assert drawn(1, dev=[(1, 0.5)], best_step=1) and coloured() > 50
    assert drawn(0) and coloured() == 0
