"""What the folder of a `sentence-transformers` model says beside its Transformer."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from research.errors import InputError
from research.weights.read import read_object

MODULES, POOLING, TRANSFORMER = "modules.json", "1_Pooling", "sentence_bert_config.json"
# Their names of poolings -> ours. The others ("weightedmean", "mean_sqrt_len_tokens", several at once) do not exist here.
POOLINGS = {"cls": "first", "lasttoken": "last", "mean": "mean", "max": "max"}
# Keys of the old spelling, each true or false, in the order of the library.
OLD = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclasses.dataclass(frozen=True)
class Modules:
    """The modules of such a folder: `poolings` under their names, `file` that says so, the folder of the Dense layer after the pooling,
    if any, and what the Transformer's own file says (`max_seq_length`, `do_lower_case`)."""

    poolings: tuple[str, ...]
    file: str
    dense: Path | None
    transformer: dict[str, Any]

    @property
    def pooling(self) -> str:
        """The pooling under our name; "" where it does not exist here."""
        return POOLINGS.get(self.poolings[0], "") if len(self.poolings) == 1 else ""


def read(folder: Path) -> Modules | None:
    """What the folder says, None where it is not one of `sentence-transformers`. Raises InputError where a file is damaged."""
    paths: dict[str, str] = {}
    if (folder / MODULES).is_file():
        for module in _entries(folder / MODULES):
            paths.setdefault(module["type"].rpartition(".")[2], module["path"])
    elif (folder / POOLING / "config.json").is_file():
        paths["Pooling"] = POOLING
    if "Pooling" not in paths:
        return None
    file = f"{paths['Pooling']}/config.json"
    transformer = read_object(folder / TRANSFORMER) if (folder / TRANSFORMER).is_file() else {}
    dense = folder / paths["Dense"] if "Dense" in paths else None
    return Modules(_poolings(read_object(folder / file)), file, dense, transformer)


def _entries(path: Path) -> list[dict[str, str]]:
    """The entries of modules.json, in order."""
    try:
        entries = json.loads(path.read_text(encoding="utf8"))
        return [{"type": str(entry["type"]), "path": str(entry["path"])} for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a list of modules with type and path ({error!r})") from error


def _poolings(config: dict[str, Any]) -> tuple[str, ...]:
    """The poolings of a module's config, in either spelling; "mean" is the library's default."""
    new = config.get("pooling_mode")
    if new:
        return (new,) if isinstance(new, str) else tuple(map(str, new))
    return tuple(mode for key, mode in OLD.items() if config.get(key)) or ("mean",)
