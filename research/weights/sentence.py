"""The folders of `sentence-transformers`: what they say beside their Transformer, and a classifier as such a folder."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from research.errors import InputError
from research.weights.reader import SINGLE, read_object, read_safetensors

MODULES, POOLING, DENSE, TRANSFORMER = "modules.json", "1_Pooling", "2_Dense", "sentence_bert_config.json"
CLASSIFIER = ("Transformer", "Pooling", "Dense")  # the modules of a classifier
PREFIX = "sentence_transformers.models."  # of the types in modules.json
IDENTITY = "torch.nn.modules.linear.Identity"
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
    """The modules of such a folder: their `kinds` in order, the `poolings` under their names, the `file` that says so, the folder of the
    first Dense layer, if any, and what the Transformer's own file says (`max_seq_length`, `do_lower_case`)."""

    kinds: tuple[str, ...]
    poolings: tuple[str, ...]
    file: str
    dense: Path | None
    transformer: dict[str, Any]

    @property
    def pooling(self) -> str:
        """The pooling under our name; "" where it does not exist here."""
        return POOLINGS.get(self.poolings[0], "") if len(self.poolings) == 1 else ""

    def is_classifier(self, config: Mapping[str, Any]) -> bool:
        """Whether the Dense layer gives the logits of the classes that the model's `config.json` names: it stands directly after the
        pooling, has no activation and an output for each of them."""
        if self.kinds != CLASSIFIER:
            return False
        dense = read_object(self.dense / "config.json")
        plain = str(dense.get("activation_function")).endswith(".Identity") and not dense.get("use_residual")
        return plain and dense.get("out_features") == len(config.get("id2label") or ())

    def classifier(self) -> dict[str, np.ndarray]:
        """Return the Dense layer as the head of a classifier, under our names."""
        tensors = read_safetensors(self.dense / SINGLE)
        bias = {"head/classifier/bias": tensors["linear.bias"]} if "linear.bias" in tensors else {}
        return {"head/classifier/kernel": tensors["linear.weight"].T, **bias}


def read(folder: Path) -> Modules | None:
    """What the folder says, None where it is not one of `sentence-transformers`. Raises InputError where a file is damaged."""
    if (folder / MODULES).is_file():
        entries = _entries(folder / MODULES)
    else:
        entries = [("Pooling", POOLING)] if (folder / POOLING / "config.json").is_file() else []
    paths = dict(reversed(entries))  # the first of each kind
    if "Pooling" not in paths:
        return None
    file = f"{paths['Pooling']}/config.json"
    transformer = read_object(folder / TRANSFORMER) if (folder / TRANSFORMER).is_file() else {}
    dense = folder / paths["Dense"] if "Dense" in paths else None
    return Modules(tuple(kind for kind, _ in entries), _poolings(read_object(folder / file)), file, dense, transformer)


def write(folder: Path, pooling: str, head: Mapping[str, np.ndarray], max_length: int) -> None:
    """Write beside a Transformer in `folder` what makes it a classifier of `sentence-transformers`: texts of at most `max_length` tokens,
    the pooling (our name), and the head ("head/classifier/..." -> array) as a Dense layer without activation.

    The old spellings are used: every version of the library reads them.
    """
    kernel, bias = head["head/classifier/kernel"], head["head/classifier/bias"]
    size, classes = kernel.shape
    paths = dict(zip(CLASSIFIER, ("", POOLING, DENSE), strict=True))
    _write(folder / MODULES, [{"idx": i, "name": str(i), "path": paths[kind], "type": PREFIX + kind} for i, kind in enumerate(CLASSIFIER)])
    _write(folder / TRANSFORMER, {"max_seq_length": max_length, "do_lower_case": False})
    modes = {key: POOLINGS.get(mode) == pooling for key, mode in OLD.items()}
    _write(folder / POOLING / "config.json", {"word_embedding_dimension": size, **modes})
    dense = {"in_features": size, "out_features": classes, "bias": True, "activation_function": IDENTITY}
    _write(folder / DENSE / "config.json", dense)
    save_file({"linear.weight": np.ascontiguousarray(kernel.T), "linear.bias": np.asarray(bias)}, folder / DENSE / SINGLE)


def _write(path: Path, contents: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf8")


def _entries(path: Path) -> list[tuple[str, str]]:
    """The kind and the path of each entry of modules.json, in order."""
    try:
        entries = json.loads(path.read_text(encoding="utf8"))
        return [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a list of modules with type and path ({error!r})") from error


def _poolings(config: dict[str, Any]) -> tuple[str, ...]:
    """The poolings of a module's config, in either spelling; "mean" is the library's default."""
    new = config.get("pooling_mode")
    if new:
        return (new,) if isinstance(new, str) else tuple(map(str, new))
    return tuple(mode for key, mode in OLD.items() if config.get(key)) or ("mean",)
