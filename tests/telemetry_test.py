"""What a run says about itself: its curves."""

import json

import numpy as np
import pytest
from matplotlib.image import imread

from research import telemetry


@pytest.fixture
def workdir(tmp_path):
    """Makes workdirs with metrics of so many steps."""

    def make(name, steps, dev=True):
        folder = tmp_path / name
        folder.mkdir()
        lines = [{"step": s, "train/loss": 3.0 / s, "train/accuracy": 1 - 1 / s, "learning_rate": 1e-3 / s} for s in range(1, steps + 1)]
        lines += [{"step": steps, "dev/loss": 1.0, "dev/accuracy": 0.5}] if dev else []
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return make


def drawn(folder, afresh=False):
    if afresh:
        telemetry._paper.cache_clear()
    telemetry.draw_curves(folder)
    return folder / "curves.png"


def test_curves_show_nothing_of_the_run_drawn_before(workdir):
    first, other, none = workdir("first", 7), workdir("other", 90, dev=False), workdir("none", 0, dev=False)
    afresh = [drawn(folder, afresh=True).read_bytes() for folder in (first, other, none)]
    assert len(set(afresh)) == 3
    assert [drawn(folder).read_bytes() for folder in (other, none, first, other)] == [afresh[i] for i in (1, 2, 0, 1)]


def test_curves_are_drawn_where_there_are_metrics(workdir):
    coloured = lambda picture: np.count_nonzero(np.ptp(imread(picture)[..., :3], axis=-1) > 0.3)  # noqa: E731
    assert coloured(drawn(workdir("some", 7))) > 500
    assert coloured(drawn(workdir("none", 0, dev=False))) == 0
