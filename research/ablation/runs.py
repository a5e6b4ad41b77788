"""The runs of a sweep: their ids, selection, grouping into tasks, and results on disk."""

import re
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict

from research import storage
from research.ablation import grouping
from research.ablation.run import Run
from research.ablation.sweep import Overrides
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import workdir as workdirs

RunSpec = tuple[Overrides, ConfigDict]


def identify(cells: Sequence[RunSpec]) -> dict[str, RunSpec]:
    """Return run id -> run spec, with resolved configs. Raises InputError if two runs have the same config, or if one is invalid."""
    runs: dict[str, RunSpec] = {}
    errors: list[tuple[str, str]] = []
    for overrides, config in cells:
        try:
            resolved = experiments.resolve(config)
        except InputError as error:
            errors.append((label(overrides), str(error)))
            continue
        run_id = workdirs.config_hash(resolved)[:12]
        if run_id in runs:
            raise InputError(f"the sweep has one run twice: {runs[run_id][0]} and {overrides} are the same config")
        runs[run_id] = overrides, resolved
    if errors:
        shared = not runs and len({reason for _, reason in errors}) == 1
        raise InputError((f"all {len(errors)} runs of the sweep" if shared else f"the run {errors[0][0]}") + f" would fail: {errors[0][1]}")
    return runs


def select(runs: dict[str, RunSpec], only: str) -> dict[str, RunSpec]:
    """Return the runs whose label (`name=value name=value`) contains a match of the regular expression `only`.

    Raises InputError if no run matches, or if `only` is not a regular expression."""
    try:
        matches = {run_id: cell for run_id, cell in runs.items() if re.search(only, label(cell[0]))}
    except re.error as error:
        raise InputError(f"--only={only} is not a regular expression: {error}") from None
    if not matches:
        labels = "; ".join(label(cell[0]) for cell in list(runs.values())[:5])
        raise InputError(f"--only={only} matches no run; the runs are {labels}; ...")
    return matches


def tasks(runs: dict[str, RunSpec], fleets: bool, index: str) -> list[list[str]]:
    """Return the tasks of the workers, as lists of run ids. With `fleets`, runs of one list are trained together; without, each is alone.

    With `index` "I/N", return only every N-th list, starting at the I-th (from 0). Raises InputError on an index of another form.
    """
    groups = grouping.groups({run_id: config for run_id, (_, config) in runs.items()}) if fleets else [[run_id] for run_id in runs]
    if not index:
        return groups
    match = re.fullmatch(r"(\d+)/(\d+)", index)
    if not match or not int(match[1]) < int(match[2]):
        raise InputError(f"--index={index} is not I/N with I from 0 to N - 1")
    return groups[int(match[1]) :: int(match[2])]


def claim(workdir: Path, path: str) -> None:
    """Record in `workdir` that it holds the sweep in the file `path`. Raises InputError if it already holds another sweep."""
    mark, name = workdir / "sweep.txt", path.partition(":")[0]
    if mark.exists() and (other := mark.read_text().strip()) != Path(name).name:
        raise InputError(f"{workdir} holds the runs of {other}, not of {Path(name).name}; give another --workdir")
    storage.write_text(mark, f"{Path(name).name}\n")


def label(overrides: Overrides) -> str:
    """Return the overrides as text: `method=lora seed=1`."""
    return " ".join(f"{name}={value}" for name, value in overrides.items())


def results(runs: dict[str, RunSpec], workdir: Path) -> list[Run]:
    """Return the runs with the results and errors that `workdir` has of them."""
    loaded = []
    for run_id, (overrides, config) in runs.items():
        folder = workdir / run_id
        result, error = folder / "result.json", folder / "error.txt"
        done = storage.read_json(result, "metrics", "selection", "speed", "params") if result.exists() else None
        loaded.append(Run(run_id, overrides, config, folder, done, error.read_text().strip() if error.exists() and not done else ""))
    return loaded
