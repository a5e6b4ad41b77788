"""Whose a workdir is: one config's, and one process's at a time."""

import contextlib
import fcntl
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research.errors import InputError
from research.whole import read_json, write_json

# Where and how fast a trained model runs is no part of what it is.
COSTS = ("parallel", "eval_batch_tokens", "prefix_cache_gb", "remat", "log_")

TRAIN_ON = (
    "To train it further: --mode=export --output=FOLDER, then another run (another --workdir) with --config.weights.source=FOLDER "
    "--config.weights.head=True."
)


def config_hash(config: ConfigDict) -> str:
    """sha256 over every field of the config."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()


def default(config: ConfigDict) -> Path:
    """runs/TASK-MODEL-METHOD-HASH: the same config comes back to the same place."""
    return Path("runs") / f"{config.task}-{config.model}-{config.method}-{config_hash(config)[:8]}"


@contextlib.contextmanager
def claimed(workdir: Path, config: ConfigDict) -> Iterator[dict[str, Any] | None]:
    """Holds the workdir for this process and config; gives the result where the run is finished.

    Raises InputError when another process runs there, or when it is another config's.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with (workdir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{workdir}: another process is running there; wait for it, or give another --workdir") from None
        check_same(workdir, config)
        result = workdir / "result.json"
        yield read_json(result, "status", "config", "metrics", "params") if result.exists() else None


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
    before, now = flat(read_json(path)), flat(config.to_dict())
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name) and not name.startswith(ignore or "\0")]
    if changed:
        name = changed[0]
        more = f" (and {len(changed) - 1} more fields)" if len(changed) > 1 else ""
        what = f"{name} is {before.get(name)!r} there and {now.get(name)!r} now{more}"
        further = f". {TRAIN_ON}" if name.startswith("total_") and (workdir / "result.json").exists() else ""
        raise InputError(f"{workdir} belongs to a different config: {what}; give another --workdir{further}")


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value, of a config as a dict."""
    found = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
