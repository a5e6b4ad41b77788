"""A run once more, from the config that it left, to see whether the same parameters come out."""

import tempfile
from pathlib import Path

from ml_collections import ConfigDict
from rich.console import Console

from research import storage
from research.ablation import fleet
from research.errors import InputError, nearest
from research.experiment import modes


def replay(workdir: Path, wanted: str, console: Console) -> bool:
    """Whether the run `wanted` (an id in `workdir`, or the beginning of one) gives the same `params.sha256` again; says so.

    A run that was trained together with others is so again. Raises InputError where there is no such run, or where it is not finished.
    """
    run_id = _find(workdir, wanted)
    before = storage.read_json(workdir / run_id / "result.json", "environment", "params")
    members = before["environment"]["fleet"] or [run_id]
    configs = {member: ConfigDict(storage.read_json(workdir / member / "config.json")) for member in members}
    console.print(f"{run_id}: once more{f', one of {len(members)} together as it was' if len(members) > 1 else ''}")
    with tempfile.TemporaryDirectory() as folder:
        if len(members) > 1:
            after = (fleet.run(configs, Path(folder), console.print) or {}).get(run_id)
        else:
            after = modes.run(configs[run_id], Path(folder) / run_id, console)
    if not isinstance(after, dict):
        raise InputError(f"{run_id} could not be run again: {after}")
    return _compare(run_id, before, after, console)


def _compare(run_id: str, before: dict, after: dict, console: Console) -> bool:
    then, now = before["params"]["sha256"], after["params"]["sha256"]
    if then == now:
        console.print(f"{run_id}: the same parameters again, sha256 {now}")
        return True
    console.print(f"{run_id}: other parameters: sha256 {now}, but {then} then")
    for part, names in (("environment", ("python", "jax", "devices")), ("weights", ("source", "sha256")), ("data", ("fingerprint",))):
        for name in names:
            if before[part][name] != after[part][name]:
                console.print(f"  {name}: {after[part][name]} now, {before[part][name]} then")
    return False


def _find(workdir: Path, wanted: str) -> str:
    known = sorted(path.parent.name for path in workdir.glob("*/result.json"))
    found = [run_id for run_id in known if run_id.startswith(wanted)]
    if len(found) != 1:
        raise InputError(f"--replay={wanted}: {f'{len(found)} finished runs begin so' if found else nearest(wanted, known)} in {workdir}")
    return found[0]
