"""Properties of every method in `methods.METHODS`, in one test with runs on the tiny model.

Compiling takes most of the time, so each program is compiled once and with little optimisation. To test resuming, the workdir is copied in
the middle of a run, as a killed process would leave it, and a second run resumes from the copy.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from rich.console import Console

from research.adapt import methods
from research.data import pipeline
from research.experiment import build as experiments
from research.experiment import modes
from research.parallel import layouts
from research.params.tree import flatten, merge
from research.tracking import curves
from research.train import trainers
from research.train.evaluate import evaluate
from research.train.step import State
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
    """Return the config changes of a run of three steps for each phase, with evaluation at the end and a checkpoint every second step."""
    total = STEPS * max(len(runs.plan(method, **SMALL).phases), 1)
    steps = {"total_steps": total, "phase_steps": STEPS, "checkpoint_steps": 2, "eval_steps": total}
    return {"method": method, "precision": "float32", "learning_rate": 0.01, "warmup_percent": 0.0, **SMALL, **steps}


def copy(tree):
    return jax.tree.map(np.array, tree)


class Watched(trainers.SingleTrainer):
    """A trainer that records its phases in `seen`, and copies the workdir before update `cut` + 1."""

    seen, cut, workdir = [], None, None

    def enter(self, phase, states):
        if Watched.seen:
            Watched.seen[-1].finish()  # the next phase donates the arrays of this one
        first = int(states[0].step)
        super().enter(phase, states)
        now = SimpleNamespace(experiment=self._experiment, phase=phase, first=first, losses=[], frozen=self._frozen)
        now.before, now.began = flatten(copy(self.full_state(0).trainable)), names_in(self._state.opt_state)

        def finish():
            now.after, now.ended = flatten(copy(self.full_state(0).trainable)), names_in(self._state.opt_state)

        now.finish = finish
        Watched.seen.append(now)

    def step(self, number, batches, active):
        if number - 1 == Watched.cut:
            shutil.copytree(Watched.workdir, Watched.workdir.with_name("cut"))
        stats = super().step(number, batches, active)
        on_one_device = self._layout.first(stats)
        Watched.seen[-1].losses.append(float(on_one_device["loss"] / on_one_device["weight"]))
        return stats


def watch(patch, cut=None, workdir=None):
    patch.setattr(modes, "SingleTrainer", Watched)
    Watched.seen, Watched.cut, Watched.workdir = [], cut, workdir
    return Watched.seen


def names_in(opt_state) -> set[str]:
    """Return the names of the parameters that an optimizer state has arrays for, and the paths of other nested entries as they are."""
    names = set()
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        keys = [str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey)]
        if np.ndim(leaf) or len(keys) > 1:
            start = next((i for i, key in enumerate(keys) if key in ("encoder", "head", "delta")), 0)
            names.add("/".join(keys[start:]))
    return names


def check_what_moves(seen: list[SimpleNamespace]) -> None:
    seen[-1].finish()
    model, moved = seen[0].experiment.model, set()
    trained, all_params = set(model.plan.trained), flatten(merge(model.trainable, model.frozen))
    assert model.plan.entries.keys() == all_params.keys()
    assert trained == flatten(model.trainable).keys() and trained.isdisjoint(flatten(model.frozen))
    for running in seen:
        trained_now = set(running.phase.plan.trained)
        moved_now = {name for name, leaf in running.after.items() if not np.array_equal(leaf, running.before[name])}
        assert moved_now <= trained_now, f"frozen, but changed: {moved_now - trained_now}"
        frozen = flatten(running.frozen)
        assert all(np.array_equal(frozen[name], leaf) for name, leaf in flatten(model.frozen).items())
        assert running.began == running.ended == trained_now
        moved |= moved_now
    assert moved == trained, f"trainable, but unchanged: {trained - moved}"


def serve() -> None:
    """Read `[config changes, workdir]` lines from standard input. For each, print the sha256 of the dev logits of the saved parameters."""
    layout, quickly = layouts.Layout(), runs.compile_quickly(pytest.MonkeyPatch(), sys.argv[1])
    quickly.__enter__()
    for line in sys.stdin:
        changes, folder = json.loads(line)
        c = runs.config(**changes)
        model, dev = modes.load_trained(c, Path(folder)), experiments.load_data(c).splits["dev"]
        trees = map(layout.replicate, (model.trainable, model.frozen))
        evaluation = evaluate(trainers.eval_program(model, layout), *trees, pipeline.batches(model, dev, layout.multiple), layout)
        print(hashlib.sha256(evaluation.outputs["logits"].tobytes()).hexdigest(), flush=True)


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Share compiled programs between all tests of this module and the other process."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, folder):
        yield folder


@pytest.fixture(scope="module")
def other_process(compiled):
    """Return a function that asks another process for the sha256 of the logits of the parameters saved in a workdir."""
    command = [sys.executable, "-c", "from tests.adapt import table_test; table_test.serve()", compiled]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=runs.environment(8), cwd=runs.ROOT, text=True, **pipes) as process:

        def ask(changes: dict, folder: Path) -> str:
            print(json.dumps([changes, str(folder)]), file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield ask
        process.stdin.close()


USUAL = ("lora", "top_k")  # always tested; the other methods take minutes


@pytest.mark.devices
@pytest.mark.parametrize("method", [m if m in USUAL else pytest.param(m, marks=pytest.mark.slow) for m in sorted(methods.METHODS)])
def test_a_method_has_the_properties_of_all_methods(method, tmp_path, monkeypatch, other_process):
    check(method, tmp_path, monkeypatch, other_process)


def check(method, tmp_path, monkeypatch, other_process):
    changes, logits = changes_for(method), []
    total, workdir = changes["total_steps"], tmp_path / "uninterrupted"
    monkeypatch.setattr(curves, "draw", lambda *_: None)

    def evaluated(*arguments):
        outcome = evaluate(*arguments)
        logits.append(outcome.outputs["logits"])
        return outcome

    # 1. Frozen parameters do not change, trainable ones do, and only these have optimizer state.
    with monkeypatch.context() as patch:
        seen = watch(patch, cut=total // 2 + 1, workdir=workdir)
        patch.setattr(trainers, "evaluate", evaluated)
        result = modes.run(runs.config(**changes), workdir, QUIET)
    losses = [loss for running in seen for loss in running.losses]
    assert len(losses) == total and result["selected_step"] == total
    check_what_moves(seen)

    # 2. The saved parameters give the same logits on dev in another process; the last evaluation of a run is that of test.
    assert other_process(changes, workdir) == hashlib.sha256(logits[-2].tobytes()).hexdigest()

    # 3. An interrupted run resumes and ends with the same parameters.
    with monkeypatch.context() as patch:
        rerun = watch(patch)
        resumed = modes.run(runs.config(**changes), tmp_path / "cut", QUIET)
    assert rerun[0].first == (total // 2 + 1) // 2 * 2
    assert [loss for running in rerun for loss in running.losses] == losses[rerun[0].first :]
    assert resumed["params"]["sha256"] == result["params"]["sha256"]
    assert resumed["metrics"] == result["metrics"]

    # 4. Four devices give the losses of one.
    with monkeypatch.context() as patch:
        patch.setattr(layouts, "layout", lambda mode: layouts.Layout(4))
        experiment = experiments.build(runs.config(**changes))
        state, several = State(np.zeros((), np.int32), experiment.model.trainable, ()), watch(patch)
        trainer = Watched(experiment)
        for phase in experiment.phases:
            trainer.enter(phase, [state])
            stream = experiment.train.stream(phase.start)
            for number in range(phase.start + 1, phase.stop + 1):
                trainer.step(number, [next(stream)], [True])
            state = trainer.full_state(0)
    np.testing.assert_allclose([loss for running in several for loss in running.losses], losses, atol=1e-5)
