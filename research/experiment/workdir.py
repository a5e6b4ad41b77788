"""Workdirs: each belongs to one config, and is used by one process at a time."""

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
from research.config.recorded import flat
from research.errors import InputError
from research.storage import read_json, write_json

# Config fields as `is_one_of` takes them. COSTS: where and how fast a model runs. USE: what may differ when a trained model is used.
COSTS = ("parallel", "eval_batch_tokens", "prefix_cache_gb", "remat", "log_")
USE = (*COSTS, "metric", "positive", "precision", "packing", "batch_size", "weights.source", "weights.sha256", "weights.pickle")

TRAIN_ON = (
    "To train it further: --mode=export --output=FOLDER, then another run (another --workdir) with --config.weights.source=FOLDER "
    "--config.weights.head=True."
)


def config_hash(config: ConfigDict) -> str:
    """Return the sha256 of all fields of the config."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()


def default(config: ConfigDict) -> Path:
    """Return the default workdir of a config, runs/TASK-MODEL-METHOD-HASH. The name also holds demo data, other weights and a seed
    that is not 0."""
    model = [Path(config.model).name, Path(config.weights.source).name]
    data = [config.data.source] if config.data.source == "demo" else []
    seed = [f"seed{config.seed}"] if config.seed else []
    return Path("runs") / safe("-".join(filter(None, [config.task, *data, *model, config.method, *seed, config_hash(config)[:8]])))


def safe(name: str) -> str:
    """Return `name` with a dash in place of characters that are special to a shell or a file system."""
    return re.sub(r"[^A-Za-z0-9_.+=]+", "-", name).strip("-.") or "unnamed"


@contextlib.contextmanager
def claimed(workdir: Path, config: ConfigDict) -> Iterator[dict[str, Any] | None]:
    """Lock the workdir for this process and config. Yield the contents of `result.json` if the run is finished, else None.

    If no config was recorded, because the run was refused, remove the new folders and the lock file afterwards.
    Raise InputError if another process uses the workdir, or if it belongs to another config.
    """
    check_same(workdir, config)
    created = [folder for folder in (workdir, *workdir.parents) if not folder.exists()]
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
                with contextlib.suppress(OSError):  # a folder that is not empty stays, and so do its parents
                    for folder in created:
                        folder.rmdir()


def with_recorded_values(workdir: Path, config: ConfigDict) -> ConfigDict:
    """Return the config with each value `auto` replaced by that of the run in `workdir`, if there is one."""
    path, names = workdir / "config.json", [name for name in fields.AUTO_FIELDS if config[name] == fields.AUTO]
    if not names or not path.exists():
        return config
    run = recorded.get_config(str(path))
    return fields.copied(config, {name: run[name] for name in names})


def record(workdir: Path, config: ConfigDict) -> None:
    """Write the config to the workdir, which belongs to this config from then on."""
    write_json(workdir / "config.json", config.to_dict())


def check_same(workdir: Path, config: ConfigDict, ignore: tuple[str, ...] = ()) -> None:
    """Raise InputError with the first field that differs if the workdir belongs to another config.

    `ignore`: fields that may differ, as in `is_one_of`.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    before, now = flat(recorded.get_config(str(path)).to_dict()), flat(with_recorded_values(workdir, config).to_dict())
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name) and not is_one_of(name, ignore)]
    if changed:
        name = changed[0]
        more = f" (and {len(changed) - 1} more fields)" if len(changed) > 1 else ""
        difference = f"{name} is {before.get(name)!r} there and {now.get(name)!r} now{more}"
        if ignore:
            advice = "where it is used only where and how it runs may differ; --workdir alone, without --config, reads the run's own config"
            raise InputError(f"{workdir} was trained with another config: {difference}; {advice}")
        further = f". {TRAIN_ON}" if name.startswith("total_") and (workdir / "result.json").exists() else ""
        raise InputError(f"{workdir} belongs to a different config: {difference}; give another --workdir{further}")


def is_one_of(name: str, fields: tuple[str, ...]) -> bool:
    """Return whether a config field is among `fields`, where "x." and "x_" stand for all fields that begin so."""
    return any(name == field or (field.endswith((".", "_")) and name.startswith(field)) for field in fields)
