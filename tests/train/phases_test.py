"""Test phases: newly unfrozen parameters get fresh optimizer state, newly frozen ones keep their values, and frozen stages cost nothing."""

import dataclasses
import json
import signal
import subprocess
import time

import jax
import numpy as np
import pytest
from rich.console import Console

from research.experiment import build as experiments
from research.experiment import modes
from research.params.tree import flatten
from research.train import phases, trainers
from research.train.step import State
from tests import runs

pytestmark = pytest.mark.slow

LONG = 5  # steps of a phase: one more than an epoch has, so that examples come round again
COUNT = {"gradual_unfreezing": 4, "chain_thaw": 5}


@dataclasses.dataclass
class Seen:
    """The record of a phase."""

    phase: phases.Phase
    before: dict
    after: dict
    began: object
    ended: object
    losses: list
    flops: float
    cached: bool


def copy(tree):
    return jax.tree.map(np.array, tree)


def train_all(method: str, **changes) -> list[Seen]:
    """Train like `loop.fit`, without its files."""
    steps = {"total_steps": LONG * COUNT[method], "phase_steps": LONG}
    e = experiments.build(runs.config(method=method, precision="float32", learning_rate=0.01, **steps, **changes))
    current, trainer, seen = State(np.zeros((), np.int32), e.model.trainable, ()), trainers.SingleTrainer(e), []
    for phase in e.phases:
        trainer.enter(phase, [current])
        batches = e.batches_of(phase, current.trainable)
        state, stream, losses = trainer.full_state(0), batches.stream(phase.start), []
        before, began = copy(state.trainable), copy(state.opt_state)
        for number in range(phase.start + 1, phase.stop + 1):
            stats = trainer.step(number, [next(stream)], [True])
            losses.append(float(stats["loss"] / stats["weight"]))
        current = trainer.full_state(0)
        after, ended, cached = copy(current.trainable), copy(current.opt_state), "hidden" in batches.columns
        seen.append(Seen(phase, flatten(before), flatten(after), began, ended, losses, trainer.flops, cached))
    return seen


@pytest.fixture(scope="module", autouse=True)
def quickly(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, str(tmp_path_factory.mktemp("compiled"))):
        yield


@pytest.fixture(scope="module", params=COUNT)
def method(request):
    return request.param


@pytest.fixture(scope="module")
def cached(method):
    return train_all(method)


@pytest.fixture(scope="module")
def uncached(method):
    return train_all(method, prefix_cache_gb=0.0)


def moments(opt_state) -> dict[str, tuple[int, np.ndarray]]:
    """Return parameter -> (steps of its group, first moment)."""
    counts, by_name = {}, {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        fields = [key.name for key in path if isinstance(key, jax.tree_util.GetAttrKey)]
        if keys and fields[-1] == "count":
            counts[keys[0]] = int(leaf)
        elif keys and fields[-1] == "mu":
            by_name["/".join(keys[1:])] = keys[0], leaf
    return {name: (counts[group], leaf) for name, (group, leaf) in by_name.items()}


def test_in_each_phase_what_it_trains_moves_and_nothing_else(cached):
    for seen in cached:
        moved = {name for name, leaf in seen.after.items() if not np.array_equal(leaf, seen.before[name])}
        assert moved == set(seen.phase.plan.trained), seen.phase.start
    for one, other in zip(cached, cached[1:], strict=False):
        assert all(np.array_equal(leaf, other.before[name]) for name, leaf in one.after.items())


def test_what_stays_open_keeps_its_moments_and_what_opens_begins_with_none(method, cached):
    assert set(moments(cached[0].began)) == set(cached[0].phase.plan.trained)
    reopened = 0
    for one, other in zip(cached, cached[1:], strict=False):
        ended, began = moments(one.ended), moments(other.began)
        assert began.keys() == set(other.phase.plan.trained)
        for name, (count, moment) in began.items():
            if name in ended:
                assert count == ended[name][0] >= LONG and np.array_equal(moment, ended[name][1]) and moment.any()
            else:
                assert count == 0 and not moment.any()
                reopened += not np.array_equal(other.before[name], cached[0].before[name])
    assert (reopened > 0) == (method == "chain_thaw")  # there, stages open again after they have trained and closed


def test_the_head_counts_all_steps_and_every_group_those_since_it_opened(method, cached):
    counts = [count for count, _ in moments(cached[-1].ended).values()]
    assert moments(cached[-1].ended)["head/classifier/kernel"][0] == LONG * len(cached) == max(counts)
    assert set(counts) == ({LONG * i for i in range(1, 5)} if method == "gradual_unfreezing" else {LONG * 5, LONG * 2, LONG})


def test_the_learning_rate_follows_the_runs_step_across_phases(method, tmp_path, monkeypatch):
    rates, original, total = {}, trainers.SingleTrainer.step, 2 * COUNT[method]

    def step(self, number, *rest):
        rates[number] = float(self._experiment.scalars(number - 1)["learning_rate"])
        return original(self, number, *rest)

    monkeypatch.setattr(trainers.SingleTrainer, "step", step)
    steps = {"total_steps": total, "phase_steps": 2, "log_steps": 1, "warmup_percent": 0.0}
    modes.run(runs.config(method=method, learning_rate=0.01, **steps), tmp_path, Console(quiet=True))
    expected = {number: pytest.approx(0.01 * (1 - (number - 1) / total), rel=1e-5) for number in range(1, total + 1)}
    assert rates == expected
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {line["step"]: line["learning_rate"] for line in lines if "learning_rate" in line} == expected


def test_a_step_takes_its_learning_rate_from_its_scalars(method):
    e = experiments.build(runs.config(method=method, precision="float32", learning_rate=0.01, warmup_percent=0.0))
    trainer = trainers.SingleTrainer(e)
    trainer.enter(e.phases[0], [State(np.zeros((), np.int32), e.model.trainable, ())])
    before = flatten(copy(trainer.full_state(0).trainable))
    original, batch = e.scalars, next(e.train.stream())
    object.__setattr__(e, "scalars", lambda step: {**original(step), "learning_rate": np.float32(0.0)})
    trainer.step(1, [batch], [True])
    assert all(np.array_equal(x, before[name]) for name, x in flatten(copy(trainer.full_state(0).trainable)).items())
    object.__setattr__(e, "scalars", original)
    trainer.step(1, [batch], [True])
    assert any(not np.array_equal(x, before[name]) for name, x in flatten(copy(trainer.full_state(0).trainable)).items())


def test_a_cached_prefix_changes_no_loss_in_any_phase(method, cached, uncached):
    """Check the losses, which would show hidden states that were computed before a stage below them had trained."""
    used = {"gradual_unfreezing": [True, True, True, False], "chain_thaw": [True, False, True, True, False]}
    assert [seen.cached for seen in cached] == used[method]
    assert not any(seen.cached for seen in uncached)
    for one, other in zip(cached, uncached, strict=True):
        np.testing.assert_allclose(one.losses, other.losses, atol=1e-5)
        assert np.ptp(one.losses) > 1e-3
        assert (one.flops < other.flops) == one.cached


def test_a_phase_costs_what_is_open_in_it(method, cached, uncached):
    for run in (cached, uncached):
        flops = [seen.flops for seen in run]
        assert set(run[-1].phase.plan.trained) == run[-1].after.keys()  # the last phase is full fine-tuning
        assert flops[0] <= 0.4 * flops[-1]
        if method == "gradual_unfreezing":
            assert all(a < b for a, b in zip(flops, flops[1:], strict=False)), flops
        else:
            assert max(flops) == flops[-1] and flops[3] < flops[2]  # the deeper the open stage, the shorter the way back


def test_phases_no_longer_than_an_epoch_keep_nothing_on_disk():
    e = experiments.build(runs.config(method="gradual_unfreezing", total_steps=16, phase_steps=4))
    assert "hidden" not in e.batches_of(e.phases[0], e.model.trainable).columns and "hidden" not in e.dev.columns
    longer = experiments.build(runs.config(method="gradual_unfreezing", total_steps=20, phase_steps=5))
    assert (
        "hidden" in longer.batches_of(longer.phases[0], longer.model.trainable).columns and "hidden" not in longer.dev.columns
    )  # dev is seen with other parameters later


def test_phases_begin_where_the_config_says_or_evenly_over_the_first_half():
    def starts(method="gradual_unfreezing", total=60, **changes):
        model = runs.build_model(runs.config(method=method, **changes), ("neg", "pos"))
        made = phases.make(model, total, {"batch_size": 8, "epoch_steps": 4})
        assert [phase.stop for phase in made[:-1]] == [phase.start for phase in made[1:]]
        assert made[-1].stop == total
        return [phase.start for phase in made]

    assert starts() == [0, 10, 20, 30]
    assert starts(phase_percent=20.0) == [0, 12, 24, 36]
    assert starts(total=20, phase_epochs=1.0) == [0, 4, 8, 12]
    assert starts(phase_steps=3, unfreeze_layers=2) == [0, 3, 6]
    assert starts("chain_thaw", phase_steps=7) == [0, 7, 14, 21, 28]
    assert starts("full", phase_steps=7) == [0]


def test_a_step_belongs_to_the_phase_that_it_is_made_in():
    e = experiments.build(runs.config(method="gradual_unfreezing", total_steps=8, phase_steps=2))
    assert [e.phase_of(step).start for step in range(1, 9)] == [0, 0, 2, 2, 4, 4, 6, 6]


STEPS = LONG * 3  # of three phases; one evaluation at the end, so that the selected parameters went through all of them
FLAGS = [
    "--config=configs/imdb.py:smoke",
    "--config.method=gradual_unfreezing",
    "--config.unfreeze_layers=2",
    f"--config.eval_steps={STEPS}",
]
FLAGS += [f"--config.phase_steps={LONG}", f"--config.total_steps={STEPS}", "--config.learning_rate=0.01"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    runs.start(*FLAGS, f"--workdir={folder}")
    return folder


@pytest.mark.parametrize(("where", "every"), [("in the middle of a phase", LONG + 2), ("at a border", LONG)])
def test_a_run_that_is_killed_ends_as_if_nothing_had_happened(where, every, undisturbed, tmp_path):
    flags = [*FLAGS, f"--config.checkpoint_steps={every}", f"--workdir={tmp_path}"]
    latest = tmp_path / "checkpoints" / "latest"
    process = subprocess.Popen(runs.command(*flags), env=runs.environment(), cwd=runs.ROOT, stderr=subprocess.DEVNULL)
    while not (latest / str(every)).is_dir():
        time.sleep(0.002)
        assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.name for path in latest.iterdir() if path.name.isdigit()] == [str(every)]
    assert f"resuming from step {every} of" in runs.start(*flags).stderr
    uninterrupted, cut = (json.loads((folder / "result.json").read_text()) for folder in (undisturbed, tmp_path))
    assert uninterrupted["params"]["sha256"] == cut["params"]["sha256"]
    assert uninterrupted["metrics"] == cut["metrics"] and uninterrupted["selected_step"] == cut["selected_step"] == STEPS
    curves = [[json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()] for folder in (undisturbed, tmp_path)]
    assert curves[0] == curves[1]
