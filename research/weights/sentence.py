"""Folders of `sentence-transformers`: reading the modules beside the Transformer, and writing a classifier in that format."""

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
# Poolings of sentence-transformers -> poolings here. "weightedmean", "mean_sqrt_len_tokens" and combinations are not supported.
POOLINGS = {"cls": "first", "lasttoken": "last", "mean": "mean", "max": "max"}
# Boolean keys of the old config format -> pooling, in the order of the library.
OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclasses.dataclass(frozen=True)
class Modules:
    """The modules of a folder of sentence-transformers.

    `kinds` are the module types in order, `poolings` the poolings under the library's names, and `file` the config that names them.
    `dense` is the folder of the first Dense layer, if any. `transformer` holds `max_seq_length` and `do_lower_case`, where they are given.
    """

    kinds: tuple[str, ...]
    poolings: tuple[str, ...]
    file: str
    dense: Path | None
    transformer: dict[str, Any]

    @property
    def pooling(self) -> str:
        """Return the name of the pooling in this project; "" where it is not supported."""
        return POOLINGS.get(self.poolings[0], "") if len(self.poolings) == 1 else ""

    def is_classifier(self, config: Mapping[str, Any]) -> bool:
        """Return whether the Dense layer is a classifier for the classes that the model's `config.json` (`config`) names.

        It is one where it directly follows the pooling and has no activation, no residual and one output per class.
        """
        if self.kinds != CLASSIFIER:
            return False
        dense = read_object(self.dense / "config.json")
        is_linear = str(dense.get("activation_function")).endswith(".Identity") and not dense.get("use_residual")
        return is_linear and dense.get("out_features") == len(config.get("id2label") or ())

    def classifier(self) -> dict[str, np.ndarray]:
        """Return the parameters of the Dense layer as those of a classifier, under Flax names."""
        tensors = read_safetensors(self.dense / SINGLE)
        bias = {"head/classifier/bias": tensors["linear.bias"]} if "linear.bias" in tensors else {}
        return {"head/classifier/kernel": tensors["linear.weight"].T, **bias}


def read(folder: Path) -> Modules | None:
    """Read the modules of a folder; return None where it is not of `sentence-transformers`. Raises InputError for a damaged file."""
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
    """Write the files that turn the Transformer in `folder` into a classifier of `sentence-transformers`.

    Texts have at most `max_length` tokens. `pooling` is the name in this project. `head` ("head/classifier/..." -> array) becomes a Dense
    layer without activation. The old config format is used, since every version of the library reads it.
    """
    kernel, bias = head["head/classifier/kernel"], head["head/classifier/bias"]
    size, classes = kernel.shape
    paths = dict(zip(CLASSIFIER, ("", POOLING, DENSE), strict=True))
    _write(folder / MODULES, [{"idx": i, "name": str(i), "path": paths[kind], "type": PREFIX + kind} for i, kind in enumerate(CLASSIFIER)])
    _write(folder / TRANSFORMER, {"max_seq_length": max_length, "do_lower_case": False})
    modes = {key: POOLINGS.get(mode) == pooling for key, mode in OLD_KEYS.items()}
    _write(folder / POOLING / "config.json", {"word_embedding_dimension": size, **modes})
    dense = {"in_features": size, "out_features": classes, "bias": True, "activation_function": IDENTITY}
    _write(folder / DENSE / "config.json", dense)
    save_file({"linear.weight": np.ascontiguousarray(kernel.T), "linear.bias": np.asarray(bias)}, folder / DENSE / SINGLE)


def _write(path: Path, contents: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(contents, indent=2) + "\n", encoding="utf8")


def _entries(path: Path) -> list[tuple[str, str]]:
    """Return the (kind, path) of each entry of modules.json, in order. Raises InputError where it is damaged."""
    try:
        entries = json.loads(path.read_text(encoding="utf8"))
        return [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in entries]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a list of modules with type and path ({error!r})") from error


def _poolings(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the poolings of a Pooling module's config, in the new or the old format; "mean" is the library's default."""
    modes = config.get("pooling_mode")
    if modes:
        return (modes,) if isinstance(modes, str) else tuple(map(str, modes))
    return tuple(mode for key, mode in OLD_KEYS.items() if config.get(key)) or ("mean",)
