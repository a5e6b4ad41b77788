"""Runs a sweep: each run in a workdir of its own, named by the hash of its config. What is finished is not run again."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from research import job, process, whole
from research import workdir as workdirs
from research.ablation.run import Run
from research.ablation.sweep import Overrides
from research.adapt import methods
from research.errors import InputError

Cell = tuple[Overrides, ConfigDict]


def identify(cells: Sequence[Cell]) -> dict[str, Cell]:
    """Run id -> run. Raises InputError where two runs are the same, or where a method is not known."""
    found: dict[str, Cell] = {}
    for overrides, config in cells:
        methods.settle(config)
        run_id = workdirs.config_hash(config)[:12]
        if run_id in found:
            raise InputError(f"the sweep has one run twice: {found[run_id][0]} and {overrides} are the same config")
        found[run_id] = overrides, config
    return found


def chosen(runs: dict[str, Cell], only: str, index: str) -> dict[str, Cell]:
    """The runs whose overrides, written as `name=value name=value`, have the regular expression `only` in them; of these, every
    N-th from the I-th where `index` is "I/N" (from 0). Raises InputError on an index that is not of that form, or where none is left.
    """
    found = {run_id: cell for run_id, cell in runs.items() if re.search(only, label(cell[0]))}
    if not found:
        raise InputError(f"--only={only} matches no run; they are {'; '.join(label(cell[0]) for cell in list(runs.values())[:5])}; ...")
    if not index:
        return found
    place = re.fullmatch(r"(\d+)/(\d+)", index)
    if not place or not int(place[1]) < int(place[2]):
        raise InputError(f"--index={index} is not I/N with I from 0 to N - 1")
    return dict(list(found.items())[int(place[1]) :: int(place[2])])


def label(overrides: Overrides) -> str:
    """`method=lora seed=1`."""
    return " ".join(f"{name}={value}" for name, value in overrides.items())


def run_all(runs: dict[str, Cell], workdir: Path, console: Console) -> None:
    """Runs what is not finished, one after the other. A run that fails leaves `error.txt` and the others go on; it is tried again the
    next time."""
    quiet = Console(quiet=True)
    for number, (run_id, (overrides, config)) in enumerate(runs.items(), 1):
        folder, begin = workdir / run_id, time.perf_counter()
        if (folder / "result.json").exists():
            continue
        try:
            result = job.run(config, folder, quiet)
        except Exception as error:  # whatever it was: the others are not to be lost
            what = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
            folder.mkdir(parents=True, exist_ok=True)
            whole.write_text(folder / "error.txt", f"{what}\n")
            console.print(f"[{number}/{len(runs)}] {label(overrides)}: failed: {what.splitlines()[0]}")
            continue
        (folder / "error.txt").unlink(missing_ok=True)
        metric = result["selection"]["metric"]
        score, seconds = result["metrics"]["test"][metric], time.perf_counter() - begin
        console.print(f"[{number}/{len(runs)}] {label(overrides)}: test {metric} {score:.4f}, {seconds:.0f} s")


def side_by_side(jobs: int, arguments: Sequence[str]) -> None:
    """The same command in `jobs` processes, each with its share of the runs and of the cores.

    Raises InputError, when all have come to their end, where one of them was killed or broke down.
    """
    running, (everything,) = [], process.shares(1)
    for i, cores in enumerate(process.shares(jobs)):
        process.keep_to(cores)  # what is started inherits it
        running.append(subprocess.Popen([sys.executable, "-m", "research.ablation", *arguments, f"--index={i}/{jobs}"]))
        process.keep_to(everything)
    if failed := [f"{i}/{jobs}" for i, one in enumerate(running) if one.wait()]:
        raise InputError(f"--jobs={jobs}: the process for {' and '.join(failed)} of the runs ended early; run the same command again")


def results(runs: dict[str, Cell], workdir: Path) -> list[Run]:
    """The runs with what is there of them in `workdir`."""
    found = []
    for run_id, (overrides, config) in runs.items():
        folder = workdir / run_id
        result, error = folder / "result.json", folder / "error.txt"
        done = json.loads(result.read_text()) if result.exists() else None
        found.append(Run(run_id, overrides, config, folder, done, error.read_text().strip() if error.exists() and not done else ""))
    return found
