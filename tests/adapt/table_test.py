"""What every method of the table must keep, on the tiny model: one test, for whatever stands in `methods.METHODS`.

Most of its time is compiling, so programs are compiled with little optimisation, and once. A process that is really killed is in
`job_test` and `phases_test`; here the disk is copied in the middle of a run, which is what a kill leaves, and the run goes on from
the copy.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from rich.console import Console

from research.adapt import methods
from research.experiment import build as experiments
from research.experiment import modes
from research.parallel import layouts
from research.params.tree import flatten, merge
from research.tracking import curves
from research.train import loop
from research.train.evaluate import evaluate
from research.train.step import State, split_microbatches
from tests import runs

QUIET = Console(quiet=True)
STEPS = 3  # of a phase
SMALL = {
    "feature_bilstm__size": 8,
    "feature_concat__size": 8,
    "feature_concat__embedding": 8,
    "houlsby__size": 8,
    "parallel_adapter__size": 8,
    "compacter__size": 8,
    "vera__rank": 16,
    "prefix__tokens": 4,
    "soft_prompt__tokens": 4,
}


def changes_for(method: str) -> dict:
    """A run of three steps for each phase, which is evaluated at its end and saved after every second step."""
    total = STEPS * max(len(runs.plan(method, **SMALL).phases), 1)
    steps = {"total_steps": total, "phase_steps": STEPS, "checkpoint_steps": 2, "eval_steps": total}
    return {"method": method, "precision": "float32", "learning_rate": 0.01, "warmup_percent": 0.0, **SMALL, **steps}


def copy(tree):
    return jax.tree.map(np.array, tree)


class Watched(loop.PhaseRunner):
    """A phase that remembers what was in it, and copies the workdir when the run comes to step `cut`."""

    seen, cut, workdir = [], None, None

    def __init__(self, experiment, phase, whole, device_constants):
        if Watched.seen:
            Watched.seen[-1].finish()  # this phase takes over the other's arrays
        super().__init__(experiment, phase, whole, device_constants)
        self.experiment, self.phase, self.first, self.losses = experiment, phase, int(whole.step), []
        self.before, self.began = flatten(copy(self.whole().trainable)), names_in(self.state.opt_state)
        Watched.seen.append(self)

    def finish(self):
        self.after, self.ended = flatten(copy(self.whole().trainable)), names_in(self.state.opt_state)

    def step(self, batch):
        if self.first + len(self.losses) == Watched.cut:
            shutil.copytree(Watched.workdir, Watched.workdir.with_name("cut"))
        totals = super().step(batch)
        here = self.experiment.layout.first(totals)
        self.losses.append(float(here["loss"] / here["count"]))
        return totals


def watch(patch, cut=None, workdir=None):
    patch.setattr(loop, "Running", Watched)
    Watched.seen, Watched.cut, Watched.workdir = [], cut, workdir
    return Watched.seen


def names_in(opt_state) -> set[str]:
    """The parameters that arrays of an optimizer's state are of; anything else that stands under a name is in it as it is."""
    found = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        keys = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        if np.ndim(leaf) or len(keys) > 1:
            start = next((i for i, key in enumerate(keys) if key in ("encoder", "head", "delta")), 0)
            found.add("/".join(keys[start:]))
    return found


def check_what_moves(seen: list[Watched]) -> None:
    seen[-1].finish()
    e, moved = seen[0].experiment, set()
    trained, everything = set(e.model.plan.trained), flatten(merge(e.model.trainable, e.model.frozen))
    assert e.model.plan.entries.keys() == everything.keys()
    assert trained == flatten(e.model.trainable).keys() and trained.isdisjoint(flatten(e.model.frozen))
    for running in seen:
        open_now = set(running.phase.plan.trained)
        now = {name for name, leaf in running.after.items() if not np.array_equal(leaf, running.before[name])}
        assert now <= open_now, f"closed, but moved: {now - open_now}"
        frozen = flatten(running._frozen)
        assert all(np.array_equal(frozen[name], leaf) for name, leaf in flatten(e.model.frozen).items())
        assert running.began == running.ended == open_now
        moved |= now
    assert moved == trained, f"open, but still: {trained - moved}"


def serve() -> None:
    """Reads `[config changes, workdir]` lines; for each, prints the sha256 of the logits on dev of what was kept there."""
    layout, quickly = layouts.Layout(), runs.compile_quickly(pytest.MonkeyPatch(), sys.argv[1])
    quickly.__enter__()
    for line in sys.stdin:
        changes, folder = json.loads(line)
        c = runs.config(**changes)
        model, dev = modes.load_trained(c, Path(folder)), experiments.load_data(c).splits["dev"]
        trees = map(layout.replicate, (model.trainable, model.frozen))
        _, logits = evaluate(loop.eval_program(model, layout), *trees, model.batches(dev, layout), layout)
        print(hashlib.sha256(logits.tobytes()).hexdigest(), flush=True)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """A program that was compiled once is not compiled again in this module, nor in the other process."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, folder):
        yield folder


@pytest.fixture(scope="module")
def elsewhere(compiled):
    """Asks another process for the logits of what is kept in a workdir."""
    command = [sys.executable, "-c", "from tests.adapt import table_test; table_test.serve()", compiled]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=runs.environment(8), cwd=runs.ROOT, text=True, **pipes) as process:

        def ask(changes: dict, folder: Path) -> str:
            print(json.dumps([changes, str(folder)]), file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield ask
        process.stdin.close()


USUAL = ("lora", "top_k")  # tried whenever the tests are run; the others take minutes


@pytest.mark.devices
@pytest.mark.parametrize("method", [m if m in USUAL else pytest.param(m, marks=pytest.mark.slow) for m in sorted(methods.METHODS)])
def test_a_method_keeps_what_all_methods_promise(method, tmp_path, monkeypatch, elsewhere):
    check(method, tmp_path, monkeypatch, elsewhere)


def check(method, tmp_path, monkeypatch, elsewhere):
    changes, logits = changes_for(method), []
    total, whole = changes["total_steps"], tmp_path / "whole"
    monkeypatch.setattr(curves, "draw", lambda *_: None)

    def evaluated(*arguments):
        scores, last = evaluate(*arguments)
        logits.append(last)
        return scores, last

    # 1. What is frozen stays, what trains moves, and only that has a state.
    with monkeypatch.context() as patch:
        seen = watch(patch, cut=total // 2 + 1, workdir=whole)
        patch.setattr(loop, "evaluate", evaluated)
        result = modes.run(runs.config(**changes), whole, QUIET)
    losses = [loss for running in seen for loss in running.losses]
    assert len(losses) == total and result["selected_step"] == total
    check_what_moves(seen)

    # 2. What was kept gives, in another process, the logits that it gave in this one.
    assert elsewhere(changes, whole) == hashlib.sha256(logits[-1].tobytes()).hexdigest()

    # 3. A run that was cut off goes on and ends with the same parameters.
    with monkeypatch.context() as patch:
        again = watch(patch)
        resumed = modes.run(runs.config(**changes), tmp_path / "cut", QUIET)
    assert again[0].first == (total // 2 + 1) // 2 * 2
    assert [loss for running in again for loss in running.losses] == losses[again[0].first :]
    assert resumed["params"]["sha256"] == result["params"]["sha256"]
    assert resumed["metrics"] == result["metrics"]

    # 4. Four devices see the losses of one.
    with monkeypatch.context() as patch:
        patch.setattr(layouts, "layout", lambda mode: layouts.Layout(4))
        e = experiments.build(runs.config(**changes))
        state, several = State(np.zeros((), np.int32), e.model.trainable, ()), watch(patch)
        for phase in e.phases:
            running, stream = Watched(e, phase, state, e.layout.replicate(e.model.device_constants)), e.train.stream(phase.start)
            for _ in range(phase.start, phase.stop):
                running.step(split_microbatches(next(stream), 1, e.layout))
            state = running.whole()
    np.testing.assert_allclose([loss for running in several for loss in running.losses], losses, atol=1e-5)
