"""A run of a sweep, as the tables and pages see it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research import storage
from research.ablation import grouping
from research.ablation.sweep import Overrides
from research.adapt import methods
from research.errors import InputError
from research.experiment import workdir as workdirs


@dataclass(frozen=True)
class Run:
    """What a run sets, its whole config, its workdir, and what became of it: what is in `result.json`, or what went wrong.

    `outdated`: it finished, but on other data than the runs beside it, so its result is left out and `error` says why."""

    id: str
    overrides: Overrides
    config: ConfigDict
    folder: Path
    result: dict[str, Any] | None = None
    error: str = ""
    outdated: bool = False

    @property
    def status(self) -> str:
        """`finished`, `failed`, `outdated`, `unfinished` (begun, or broken off without a word) or `not run`."""
        if self.outdated:
            return "outdated"
        if self.result or self.error:
            return "finished" if self.result else "failed"
        return "unfinished" if (self.folder / "config.json").exists() else "not run"

    @property
    def finished_at(self) -> float:
        """When its result was written, in seconds since 1970; 0 where it is not on disk."""
        path = self.folder / "result.json"
        return path.stat().st_mtime if path.exists() else 0.0


RunSpec = tuple[Overrides, ConfigDict]


def identify(cells: Sequence[RunSpec]) -> dict[str, RunSpec]:
    """Run id -> run. Raises InputError where two runs are the same, or where a method is not known."""
    found: dict[str, RunSpec] = {}
    for overrides, config in cells:
        methods.resolve(config)
        run_id = workdirs.config_hash(config)[:12]
        if run_id in found:
            raise InputError(f"the sweep has one run twice: {found[run_id][0]} and {overrides} are the same config")
        found[run_id] = overrides, config
    return found


def chosen(runs: dict[str, RunSpec], only: str) -> dict[str, RunSpec]:
    """The runs whose overrides, written as `name=value name=value`, have the regular expression `only` in them.

    Raises InputError where there is none, or where `only` is no regular expression."""
    try:
        found = {run_id: cell for run_id, cell in runs.items() if re.search(only, label(cell[0]))}
    except re.error as error:
        raise InputError(f"--only={only} is no regular expression: {error}") from None
    if not found:
        raise InputError(f"--only={only} matches no run; they are {'; '.join(label(cell[0]) for cell in list(runs.values())[:5])}; ...")
    return found


def tasks(runs: dict[str, RunSpec], fleets: bool, index: str) -> list[list[str]]:
    """What is to be done, as lists of run ids, those of one list together; where `index` is "I/N", every N-th list from the I-th, from 0.

    Raises InputError on an index that is not of that form.
    """
    found = grouping.groups({run_id: config for run_id, (_, config) in runs.items()}) if fleets else [[run_id] for run_id in runs]
    if not index:
        return found
    place = re.fullmatch(r"(\d+)/(\d+)", index)
    if not place or not int(place[1]) < int(place[2]):
        raise InputError(f"--index={index} is not I/N with I from 0 to N - 1")
    return found[int(place[1]) :: int(place[2])]


def own(workdir: Path, path: str) -> None:
    """Makes the folder that of the sweep in the file `path`. Raises InputError where it is another sweep's."""
    mark, name = workdir / "sweep.txt", path.partition(":")[0]
    if mark.exists() and (other := mark.read_text().strip()) != Path(name).name:
        raise InputError(f"{workdir} holds the runs of {other}, not of {Path(name).name}; give another --workdir")
    storage.write_text(mark, f"{Path(name).name}\n")


def label(overrides: Overrides) -> str:
    """`method=lora seed=1`."""
    return " ".join(f"{name}={value}" for name, value in overrides.items())


def results(runs: dict[str, RunSpec], workdir: Path) -> list[Run]:
    """The runs with what is there of them in `workdir`."""
    found = []
    for run_id, (overrides, config) in runs.items():
        folder = workdir / run_id
        result, error = folder / "result.json", folder / "error.txt"
        done = storage.read_json(result, "metrics", "selection", "speed", "params") if result.exists() else None
        found.append(Run(run_id, overrides, config, folder, done, error.read_text().strip() if error.exists() and not done else ""))
    return found
