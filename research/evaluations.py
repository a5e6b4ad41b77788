"""Evaluations of a trained run on data that may be others than its own: where their results stand, and what is said of them."""

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from rich.console import Console

from research import whole, workdir
from research.data.examples import Examples
from research.errors import InputError, nearest


def compare(run: Path, fingerprint: str, console: Console) -> None:
    """Say so where the data are not those that the run in the folder `run` was trained and tested on."""
    if not (run / "result.json").exists():
        return
    before = whole.read_json(run / "result.json", "data")["data"]["fingerprint"]
    if before != fingerprint:
        console.print(
            f"these are other data than the run's: their fingerprint is {fingerprint[:12]}, that of the run's data was {before[:12]}; "
            "the scores below are not those of result.json"
        )


def check_labels(splits: Mapping[str, Examples], known: tuple[str, ...], source: str) -> None:
    """Raise InputError for an example whose label is none of those that the run was trained on."""
    for examples in splits.values():
        for id, label in zip(examples.ids, examples.labels, strict=True):
            if label not in known:
                raise InputError(f"{source}: label {label!r} of {id} is not a class of the trained model; {nearest(label, known)}")


def folder(run: Path, data: Mapping[str, str], config: ConfigDict) -> Path:
    """Return the folder for the results of a config on `data` (`source` and `fingerprint`): another one for whatever is different."""
    what = hashlib.sha256(json.dumps([dict(data), config.to_dict()], sort_keys=True).encode()).hexdigest()
    return run / "evaluations" / f"{workdir.safe(Path(data['source']).stem)}-{what[:8]}"


def record(folder: Path, config: ConfigDict, data: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
    """Write `scores.json`: the metrics, the data that they are of, the config as it was used, and the command."""
    whole.write_json(folder / "scores.json", {"metrics": metrics, "data": data, "config": config.to_dict(), "argv": sys.argv})
