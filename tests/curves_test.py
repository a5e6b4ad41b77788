"""The picture of a run's curves, and the process that draws it."""

import json
import os
import signal

import numpy as np
import pytest
from matplotlib.image import imread

from research import curves


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
        curves._paper.cache_clear()
    curves.picture(folder)
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


@pytest.fixture
def artist(monkeypatch):
    """A process that is this test's own."""
    monkeypatch.setattr(curves, "_artist", curves.functools.cache(curves.Artist))
    yield curves.prepare
    curves.prepare().close()


def test_another_process_draws_the_same_picture_and_may_be_waited_for_in_any_order(workdir, artist):
    folders = [workdir(str(steps), steps) for steps in (3, 5, 7)]
    waits = [curves.draw(folder) for folder in folders]
    for wait in reversed(waits):
        wait()
    theirs = [(folder / "curves.png").read_bytes() for folder in folders]
    assert len(set(theirs)) == 3 and theirs == [drawn(folder).read_bytes() for folder in folders]


def test_what_cannot_be_drawn_is_said_and_the_next_is_drawn(workdir, artist):
    broken, fine = workdir("broken", 3), workdir("fine", 3)
    (broken / "metrics.jsonl").write_text('{"train/loss": 1}\n')
    waits = [curves.draw(folder) for folder in (broken, fine)]
    with pytest.raises(RuntimeError, match="^curves.png was not drawn: KeyError: 'step'$"):
        waits[0]()
    waits[1]()
    assert (fine / "curves.png").exists() and not (broken / "curves.png").exists()


def test_what_a_process_that_was_killed_did_not_draw_is_drawn_here_and_the_next_by_a_new_one(workdir, artist):
    first, one, lost, other = artist(), workdir("one", 3), workdir("lost", 3), workdir("other", 3)
    curves.draw(one)()
    os.kill(first._process.pid, signal.SIGSTOP)  # so that it cannot be quicker
    wait = curves.draw(lost)
    os.kill(first._process.pid, signal.SIGKILL)
    first._process.wait()
    assert not (lost / "curves.png").exists() and not first.wait(1) and first.wait(0)
    wait()
    curves.draw(other)()
    assert (lost / "curves.png").exists() and (other / "curves.png").exists() and artist() is not first


def test_ctrl_c_is_not_for_the_process_and_the_end_of_the_line_is(artist):
    one = artist()
    assert os.getpgid(one._process.pid) == one._process.pid != os.getpgid(0)
    one.close()
    assert one._process.returncode == 0 and not one.lives()
