"""Train a finished run again from its saved config and check that the parameters are the same."""

import tempfile
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from research import storage
from research.ablation import fleet
from research.errors import InputError, nearest
from research.experiment import modes


def replay(workdir: Path, prefix: str, console: Console) -> bool:
    """Train the finished run in `workdir` whose id begins with `prefix` again; return whether `params.sha256` is the same, and print it.

    A run that was trained together with others is trained together with them again. Raises InputError if not exactly one finished run
    matches, or if the run fails.
    """
    run_id = _find_run(workdir, prefix)
    before = storage.read_json(workdir / run_id / "result.json", "environment", "params")
    members = before["environment"]["fleet"] or [run_id]
    configs = {member: ConfigDict(storage.read_json(workdir / member / "config.json")) for member in members}
    console.print(f"{run_id}: training it again{f', as one of {len(members)} runs trained together' if len(members) > 1 else ''}")
    with tempfile.TemporaryDirectory() as folder:
        if len(members) > 1:
            after = {member: outcome for member, outcome, _ in fleet.run(configs, Path(folder), console.print)}.get(run_id)
        else:
            after = modes.run(configs[run_id], Path(folder) / run_id, console)
    if not isinstance(after, dict):
        raise InputError(f"{run_id} could not be trained again: {after}")
    return _compare(run_id, before, after, console)


def _compare(run_id: str, before: dict, after: dict, console: Console) -> bool:
    old, new = before["params"]["sha256"], after["params"]["sha256"]
    if old == new:
        console.print(f"{run_id}: the parameters are the same, sha256 {new}")
        return True
    console.print(f"{run_id}: the parameters differ: sha256 is {new} now, was {old}")
    for part, names in (("environment", ("python", "jax", "devices")), ("weights", ("source", "sha256")), ("data", ("fingerprint",))):
        for name in names:
            if before[part][name] != after[part][name]:
                console.print(f"  {name}: is {after[part][name]} now, was {before[part][name]}")
    return False


def _find_run(workdir: Path, prefix: str) -> str:
    known = sorted(path.parent.name for path in workdir.glob("*/result.json"))
    matches = [run_id for run_id in known if run_id.startswith(prefix)]
    if len(matches) != 1:
        problem = f"{len(matches)} finished runs have ids that begin so" if matches else nearest(prefix, known)
        raise InputError(f"--replay={prefix}: {problem} in {workdir}")
    return matches[0]
