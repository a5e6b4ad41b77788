"""Training of runs that differ only in the seed and scalars: in lockstep as one program if that is faster, else one after the other.

Each run writes the same files as if it were trained alone.
"""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict
from rich.console import Console

from research.ablation import grouping
from research.ablation.fleet_trainer import Fleet
from research.experiment import build as experiments
from research.experiment import modes
from research.experiment import workdir as workdirs
from research.experiment.experiment import Experiment
from research.parallel.layouts import Layout
from research.params.tree import count
from research.train import feature_cache, loop

LARGEST = 5_000_000  # trainable parameters of all members: with more, arithmetic dominates a step and lockstep saves little
MEMORY = 4 * 10**9  # bytes that the steps of all members may store for the backward pass
FEATURE_BYTES = 60  # approximate bytes stored per feature of a stage's output

Outcome = dict[str, Any] | Exception  # the contents of result.json, or the error of the run
Build = Callable[[ConfigDict], Experiment]


def run(configs: dict[str, ConfigDict], workdir: Path, say: Callable[[str], None]) -> Iterator[tuple[str, Outcome, float]]:
    """Train the runs, each in its folder of `workdir`, in lockstep if that is faster, and report the choice to `say`.

    Yields the id, the outcome and the seconds of each unfinished run when it ends. Runs trained together have equal shares of the
    seconds. A finished run keeps its place in the fleet, so that the other runs have the same results on resuming.
    """
    begin, build = time.perf_counter(), _builder()
    todo = [run_id for run_id in configs if not (workdir / run_id / "result.json").exists()]
    if len(configs) > 1 and todo:
        try:
            ended = _together(configs, build, todo, workdir, say)
        except Exception as error:  # of the fleet: each run may work alone
            say(f"{len(todo)} runs one after the other: together they failed: {type(error).__name__}: {error}")
            ended = {}
        yield from ((run_id, outcome, (time.perf_counter() - begin) / len(ended)) for run_id, outcome in ended.items())
        todo = [run_id for run_id in todo if run_id not in ended]
    for run_id in todo:
        begin = time.perf_counter()
        outcome = _attempt(lambda run_id=run_id: modes.run(configs[run_id], workdir / run_id, Console(quiet=True), build=build))
        yield run_id, outcome, time.perf_counter() - begin


def _builder() -> Build:
    """Return a function that builds experiments. Experiments share all that does not depend on the seed or scalars."""
    makers: dict[str, Build] = {}

    def build(config: ConfigDict) -> Experiment:
        key = grouping.structure(config)
        if key not in makers:
            makers[key] = experiments.experiments_of(config)
        return makers[key](config)

    return build


def _attempt(action: Callable[[], Any]) -> Any:
    """Return the result of `action`, or the exception that it raised."""
    try:
        return action()
    except Exception as error:  # any error: the other runs must not be lost
        return error


def _together(
    configs: dict[str, ConfigDict], build: Build, todo: Sequence[str], workdir: Path, say: Callable[[str], None]
) -> dict[str, Outcome]:
    """Train the runs as one program if nothing speaks against it, and return the outcomes of those in `todo`; else return {}."""
    ended: dict[str, Outcome] = {}
    built: dict[str, Experiment] = {}
    for run_id, config in configs.items():
        experiment = _attempt(lambda run_id=run_id, config=config: build(workdirs.with_recorded_values(workdir / run_id, config)))
        if isinstance(experiment, Exception):
            ended |= {run_id: experiment} if run_id in todo else {}
            continue
        built[run_id] = experiment
        if why := objection(list(built.values()), len(configs)):
            say(f"{len(todo)} runs one after the other: {why}")
            return ended
    if len(built) < 2:
        return ended
    say(f"{len(built)} runs as one program")
    with contextlib.ExitStack() as stack:
        fleet, started = Fleet(list(built.values())), {}
        for run_id in (run_id for run_id in built if run_id in todo):
            try:
                if finished := stack.enter_context(workdirs.claimed(workdir / run_id, configs[run_id])):
                    ended[run_id] = finished
                else:
                    started[run_id] = modes.begin(built[run_id], workdir / run_id, Console(quiet=True))
            except Exception as error:
                ended[run_id] = error
        runs = [started.get(run_id) for run_id in built]
        if started:
            loop.fit(runs, fleet)
        for run_id, training_run, measured in zip(built, runs, modes.measure(runs, fleet), strict=True):
            if measured is not None:
                ended[run_id] = _attempt(
                    lambda run=training_run, measured=measured, config=configs[run_id]: modes.finish(
                        run, measured, config, fleet.compilations, list(built)
                    )
                )
            elif training_run is not None:
                ended[run_id] = training_run.error
    return ended


def objection(members: Sequence[Experiment], size: int) -> str:
    """Return the reason to train a fleet of `size` one after the other, from its first members, or "" if there is none."""
    first = members[0]
    if first.layout != Layout():
        return "they run on several devices"
    below, stages = first.model.plan.frozen_stages(first.model.encoder.stages), first.model.encoder.stages
    if jax.default_backend() == "cpu" and below < len(stages):
        return "on a CPU a step of each takes the time of its own work, and there is little to share"
    if len({feature_cache.file(one.dev) for one in members}) > 1:
        return "their frozen parameters differ"
    trainable = count(first.model.trainable)
    if trainable * size > LARGEST:
        return f"each trains {trainable:,} parameters, and there is little to share"
    stored = max(shape.rows * shape.length for shape in first.train.shapes) * sum(first.model.widths[below:]) * FEATURE_BYTES * size
    if stored > MEMORY:
        return f"together they would keep about {stored / 1e9:.1f} GB in a step, {MEMORY / 1e9:g} at most are wanted"
    return ""
