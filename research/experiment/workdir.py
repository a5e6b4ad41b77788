"""Whose a workdir is: one config's, and one process's at a time."""

import contextlib
import fcntl
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research.config import fields, recorded
from research.config.recorded import flat as flat
from research.errors import InputError
from research.storage import read_json, write_json

# Beginnings of fields: where and how fast a model runs; and beside these what may differ where a trained one is used.
COSTS = ("parallel", "eval_batch_tokens", "prefix_cache_gb", "remat", "log_")
USE = (*COSTS, "metric", "positive", "precision", "packing", "batch_size", "weights.source", "weights.sha256", "weights.pickle")

TRAIN_ON = (
    "To train it further: --mode=export --output=FOLDER, then another run (another --workdir) with --config.weights.source=FOLDER "
    "--config.weights.head=True."
)


def config_hash(config: ConfigDict) -> str:
    """sha256 over every field of the config."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()


def default(config: ConfigDict) -> Path:
    """Return runs/TASK-MODEL-METHOD-HASH, with what else tells runs apart at a glance between them: the same config comes back to the
    same place."""
    model = [Path(config.model).name, Path(config.weights.source).name]
    data = [config.data.source] if config.data.source == "demo" else []
    seed = [f"seed{config.seed}"] if config.seed else []
    return Path("runs") / safe("-".join(filter(None, [config.task, *data, *model, config.method, *seed, config_hash(config)[:8]])))


def safe(name: str) -> str:
    """Return `name` with every character that a shell or a file system may read in its own way as a dash."""
    return re.sub(r"[^A-Za-z0-9_.+=]+", "-", name).strip("-.") or "unnamed"


@contextlib.contextmanager
def claimed(workdir: Path, config: ConfigDict) -> Iterator[dict[str, Any] | None]:
    """Hold the workdir for this process and config; give the result where the run is finished.

    Where nothing of the run is recorded in the end, because it was refused, the folders and the lock that were made are taken away.
    Raises InputError when another process runs there, or when it is another config's.
    """
    check_same(workdir, config)
    made = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / ".lock"
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{workdir}: another process is running there; wait for it, or give another --workdir") from None
        try:
            check_same(workdir, config)
            result = workdir / "result.json"
            yield read_json(result, "status", "config", "metrics", "params") if result.exists() else None
        finally:
            if not (workdir / "config.json").exists():
                path.unlink()
                with contextlib.suppress(OSError):  # one that is not empty stays, and so do those that it is in
                    for folder in made:
                        folder.rmdir()


def with_recorded_values(workdir: Path, config: ConfigDict) -> ConfigDict:
    """Return the config, in which `pooling=auto` has the value that the run in `workdir` used, if one began there."""
    path = workdir / "config.json"
    if config.pooling != fields.AUTO or not path.exists():
        return config
    return fields.copied(config, {"pooling": recorded.get_config(str(path)).pooling})


def record(workdir: Path, config: ConfigDict) -> None:
    """Writes the config that the workdir belongs to from now on."""
    write_json(workdir / "config.json", config.to_dict())


def check_same(workdir: Path, config: ConfigDict, ignore: tuple[str, ...] = ()) -> None:
    """Raises InputError, naming a field that differs, when the workdir is another config's.

    `ignore`: beginnings of fields that may differ.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    before, now = flat(recorded.get_config(str(path)).to_dict()), flat(with_recorded_values(workdir, config).to_dict())
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name) and not name.startswith(ignore or "\0")]
    if changed:
        name = changed[0]
        more = f" (and {len(changed) - 1} more fields)" if len(changed) > 1 else ""
        what = f"{name} is {before.get(name)!r} there and {now.get(name)!r} now{more}"
        if ignore:
            way = "where it is used only where and how it runs may differ; --workdir alone, without --config, reads the run's own config"
            raise InputError(f"{workdir} was trained with another config: {what}; {way}")
        further = f". {TRAIN_ON}" if name.startswith("total_") and (workdir / "result.json").exists() else ""
        raise InputError(f"{workdir} belongs to a different config: {what}; give another --workdir{further}")
