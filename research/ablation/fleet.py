"""Runs of a sweep that differ in their seed and in scalars alone, trained as one program; each writes its workdir as if it ran alone."""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from research.ablation import meeting
from research.experiment import build as experiments
from research.experiment import experiment, modes
from research.experiment import workdir as workdirs
from research.parallel import layouts
from research.params.tree import count, flatten, unflatten

LARGEST = 5_000_000  # trainable parameters of all members: beyond, a step's time is the work itself, which is not shared
MEMORY = 4 * 10**9  # bytes that all members' steps may keep for the backward pass
KEPT = 60  # of them for each feature of a stage's output, about


def _kind(config: ConfigDict) -> str:
    return json.dumps(config.to_dict() | {"seed": None}, sort_keys=True)


def run(configs: dict[str, ConfigDict], workdir: Path, say: Callable[[str], None]) -> dict[str, dict[str, Any] | Exception] | None:
    """Trains the runs together, each in its folder of `workdir`; the result of each that was not finished, or what went wrong with it.

    None, where they had better run one after the other: `say` is told why. A finished run keeps its place, so that the others compute
    what they would compute beside it; where it differs from them in more than the seed, it goes along once more, to no effect. Raises
    what came of putting them together, where that did not work.
    """
    finished = {run_id for run_id in configs if (workdir / run_id / "result.json").exists()}
    builders: dict[str, Callable[[ConfigDict], experiment.Experiment]] = {}
    built, failed = {}, {}
    for run_id, config in configs.items():
        config = workdirs.with_recorded_values(workdir / run_id, config)
        try:
            build = builders.get(_kind(config)) or builders.setdefault(_kind(config), experiments.experiments_of(config))
            built[run_id] = build(config)
        except Exception as error:  # its own affair
            failed |= {run_id: error} if run_id not in finished else {}
            continue
        if why := _objection(built[run_id], len(configs)):
            say(f"{len(configs)} runs one after the other: {why}")
            return None
    if not built:
        return failed
    built, everybodys = _with_one_base(built)
    table = meeting.Meeting({run_id: _kind(e.config) for run_id, e in built.items()}, everybodys)
    say(f"{len(built)} runs as one program")

    def member(run_id: str, folder: Path) -> dict[str, Any] | Exception:
        e = dataclasses.replace(built[run_id], layout=meeting.Seat(meeting=table))
        try:
            return modes.run(configs[run_id], folder, Console(quiet=True), build=lambda _: e)
        except Exception as error:
            return error

    with tempfile.TemporaryDirectory() as nowhere:
        members = {run_id: functools.partial(member, run_id, workdir / run_id) for run_id in built if run_id not in finished}
        kinds = {_kind(e.config) for e in built.values()}
        ghosts = {run_id: functools.partial(member, run_id, Path(nowhere) / run_id) for run_id in finished if len(kinds) > 1}
        ended = table.hold(members, ghosts)
    if len({id(result) for result in ended.values()}) == 1 < len(ended):  # one error for all: their being together did not work
        raise next(iter(ended.values()))
    return ended | failed


def _objection(e: experiment.Experiment, members: int) -> str:
    """Why this experiment is not to be trained with others; empty if it may."""
    if e.layout != layouts.Layout():
        return "they run on several devices"
    trains, below = count(e.model.trainable), e.model.plan.frozen_stages(e.model.encoder.stages)
    kept = max(shape.rows * shape.length for shape in e.train.shapes) * sum(e.model.widths[below:]) * KEPT
    at_once = min(members, meeting.ABREAST) if jax.default_backend() == "cpu" else members
    if kept * at_once > MEMORY:
        return f"together they would keep about {kept * at_once / 1e9:.1f} GB in a step, {MEMORY / 1e9:g} at most are wanted"
    return f"each trains {trains:,} parameters, and there is little to share" if trains * members > LARGEST else ""


def _with_one_base(built: dict[str, experiment.Experiment]) -> tuple[dict[str, experiment.Experiment], list[np.ndarray]]:
    """The experiments, with those frozen arrays that are equal in all of them being one array in all; and these arrays."""
    frozen = {run_id: {name: np.asarray(x) for name, x in flatten(e.model.frozen).items()} for run_id, e in built.items()}
    first, *others = frozen.values()
    everybodys = {name: x for name, x in first.items() if all(x is other[name] or np.array_equal(x, other[name]) for other in others)}
    models = {run_id: dataclasses.replace(e.model, frozen=unflatten(frozen[run_id] | everybodys)) for run_id, e in built.items()}
    return {run_id: dataclasses.replace(e, model=models[run_id]) for run_id, e in built.items()}, list(everybodys.values())
