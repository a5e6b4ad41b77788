"""Deltas in the format of the `peft` library: `adapter_config.json` and `adapter_model.safetensors`, written and read."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from research.errors import InputError, nearest
from research.weights.name_map import Row, Table, to_ours, to_theirs
from research.weights.reader import read_object, read_safetensors

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
BEFORE, BEFORE_PREFIX = "base_model.model.", "base_model."  # what stands before names; before the head's beside a prefix
CLASSIFIER = "SEQ_CLS"  # the `task_type` of adapters that have a classifier
TYPES = {"lora": "LORA", "dora": "LORA", "ia3": "IA3", "prefix": "PREFIX_TUNING"}
# How a delta's leaf is called there, and whether it is transposed on the way.
LEAVES = {"a": ("lora_A.weight", True), "b": ("lora_B.weight", True), "magnitude": ("lora_magnitude_vector", False)}
# Keys of adapter_config.json that the tensors say too, or that only matter to training or to peft itself.
ELSEWHERE = {"target_modules", "feedforward_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"}
ELSEWHERE |= {"token_dim", "num_layers", "num_attention_heads", "encoder_hidden_size", "fan_in_fan_out", "inference_mode"}
ELSEWHERE |= {"lora_dropout", "init_ia3_weights", "init_weights", "eva_config", "loftq_config", "corda_config", "lora_ga_config"}
ELSEWHERE |= {"auto_mapping", "peft_version", "base_model_name_or_path", "revision", "megatron_core", "qalora_group_size"}
READ = {"peft_type", "task_type", "r", "lora_alpha", "use_rslora", "use_dora", "num_virtual_tokens"}
# What the others may be, beside nothing at all. Other ways to begin change the model under the adapter too.
ALLOWED = {"bias": ("none",), "init_lora_weights": (True, "gaussian", "orthogonal", "eva"), "num_transformer_submodules": (1,)}
IA3 = {"outputs": (-1, 1), "inputs": (1, -1)}  # shapes of `ia3_l`
PROMPT, OWN = "prompt_embeddings", r"(.*)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector|ia3_l)"
Tensors = dict[str, np.ndarray]


def write(folder: Path, name: str, options: Mapping[str, Any], own: Tensors, head: Tensors, table: Table, shape: Any, base: str) -> None:
    """Writes the delta `name` ("lora", "dora", "ia3" or "prefix") with its options and parameters (flat, as they stand under
    `delta/NAME/`), and the head's (flat, as under `head/`), for a model of `table` and the shape `shape`, trained on the model `base`.

    Raises InputError for a delta that peft does not have, or where one layer there is several here.
    """
    if name not in TYPES:
        raise InputError(f"method={name}: peft has no place for it; {nearest(name, TYPES)}; --format=huggingface merges what can be merged")
    theirs = to_theirs({f"head/{leaf}": array for leaf, array in head.items()}, table, "classifier")
    saved = sorted({leaf.split(".")[0] for leaf in theirs})
    tensors = {f"{BEFORE_PREFIX if name == 'prefix' else BEFORE}{leaf}": array for leaf, array in theirs.items()}
    config = {"peft_type": TYPES[name], "task_type": CLASSIFIER, "base_model_name_or_path": base, "inference_mode": True}
    if name == "prefix":
        config |= {"num_virtual_tokens": options["tokens"], "token_dim": shape.hidden_size, "num_layers": shape.num_hidden_layers}
        config |= {"num_attention_heads": shape.num_attention_heads, "num_transformer_submodules": 1, "prefix_projection": False}
        config |= {"encoder_hidden_size": shape.hidden_size, "modules_to_save": saved}
        tensors["prompt_embeddings"] = _joined(own, shape.num_hidden_layers)
    else:
        modules = {path: module_of(path, table) for path in sorted({leaf.rpartition("/")[0] for leaf in own})}
        config |= {"target_modules": sorted(set(modules.values())), "modules_to_save": saved}
        if name == "ia3":
            config["feedforward_modules"] = sorted({modules[leaf.rpartition("/")[0]] for leaf in own if leaf.endswith("/inputs")})
        else:
            config |= {"r": options["rank"], "lora_alpha": options["alpha"], "lora_dropout": options["dropout"], "bias": "none"}
            config |= {"use_rslora": options["rank_stabilised"], "use_dora": name == "dora"}
        for leaf, array in own.items():
            path, _, last = leaf.rpartition("/")
            there, turned = ("ia3_l", False) if name == "ia3" else LEAVES[last]
            array = array.reshape(IA3[last]) if name == "ia3" else array.T if turned else array
            tensors[f"{BEFORE}{modules[path]}.{there}"] = np.ascontiguousarray(array)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf8")
    safetensors.numpy.save_file({leaf: np.ascontiguousarray(array) for leaf, array in tensors.items()}, folder / TENSORS)


def read(folder: Path, table: Table, layers: int) -> tuple[str, dict[str, Any], Tensors, Tensors]:
    """`(name, options, own, head)` of an adapter for a model of `table` with so many layers: what `write` was given.

    `options` are those that the files say. `head` is empty where the adapter has none. Raises InputError where a file is missing or
    damaged, for a kind of adapter that is not known, and for tensors that have no place here.
    """
    config, named = read_object(folder / CONFIG), tensors(folder)
    kind = str(config.get("peft_type"))
    name = "dora" if config.get("use_dora") else next((n for n, theirs in TYPES.items() if theirs == kind), None)
    if name is None:
        raise InputError(f"{folder}: peft_type {kind!r} is not read; {nearest(kind, TYPES.values())}")
    _check_keys(config, folder)
    own, rest = {}, {}
    for leaf, array in named.items():
        if leaf == PROMPT:
            own |= _parted(array, layers, folder)
        elif match := re.fullmatch(OWN, leaf):
            path, last = path_of(match[1], table), match[2]
            if path is None:
                raise InputError(f"{folder}: {leaf} changes a module that has no place here")
            if last == "ia3_l":
                own[f"{path}/{'outputs' if array.shape[1] == 1 else 'inputs'}"] = array.reshape(-1)
            else:
                last, turned = next((ours, turned) for ours, (there, turned) in LEAVES.items() if there == last)
                own[f"{path}/{last}"] = array.T if turned else array
        else:
            rest[leaf] = array
    head = to_ours(rest, table, "classifier")
    if strange := [leaf for leaf in head if not leaf.startswith("head/")]:
        raise InputError(f"{folder}: {strange[0]} has no place here")
    if head and config.get("task_type") not in (None, CLASSIFIER):
        raise InputError(f"{folder}: its head is for task_type {config['task_type']!r}, not for classes of texts ({CLASSIFIER})")
    return name, _options(name, config), own, {leaf.removeprefix("head/"): array for leaf, array in head.items()}


def tensors(folder: Path) -> Tensors:
    """Return what an adapter's file holds, without what peft puts before names. Raises InputError where it is missing or damaged."""
    if not (folder / TENSORS).is_file():
        raise InputError(f"{folder}: no {TENSORS} beside {CONFIG}")
    return {name.removeprefix(BEFORE).removeprefix(BEFORE_PREFIX): array for name, array in read_safetensors(folder / TENSORS).items()}


def is_delta(name: str) -> bool:
    """Return whether a tensor of that name belongs to the delta, and not to a head."""
    return name == PROMPT or re.fullmatch(OWN, name) is not None


def _check_keys(config: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for a key that would change what the adapter computes and that is not read here."""
    for key, value in config.items():
        if value and key not in ELSEWHERE | READ and value not in ALLOWED.get(key, ()):
            merged = "merge it with peft's merge_and_unload and begin with that folder"
            raise InputError(f"{folder}: {CONFIG} has {key}={json.dumps(value)}, which is not read here; {merged}")


def _options(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if name == "prefix":
        return {"tokens": config["num_virtual_tokens"]}
    if name == "ia3":
        return {}
    defaults = {"r": 8, "lora_alpha": 8} | dict(config)  # peft's own
    return {"rank": defaults["r"], "alpha": float(defaults["lora_alpha"]), "rank_stabilised": bool(config.get("use_rslora"))}


def module_of(path: str, table: Table) -> str:
    """The name there of the module at `path` here ("layer_0/attention/query"). Raises InputError where it is a part of a larger one."""
    found = next((row for row in table.rows if _match(row, path)), None)
    if found is None or len(found.ours) > 1:
        what = "is a part of a larger module" if found else "has no name"
        raise InputError(f"{path} {what} in transformers, so peft cannot have it; --format=huggingface merges it")
    return table.prefix + found.torch.removesuffix(".weight").replace("*", _match(found, path)[-1])


def path_of(module: str, table: Table) -> str | None:
    """The inverse of `module_of`; None where there is no such module."""
    name = f"{module.removeprefix(table.prefix)}.weight"
    for row in table.rows:
        match = re.fullmatch(re.escape(row.torch).replace(r"\*", r"(\d+)"), name)
        if match and len(row.ours) == 1:
            return row.ours[0].replace("*", "".join(match.groups())).removeprefix("encoder/").rpartition("/")[0]
    return None


def _match(row: Row, path: str) -> tuple[str, ...] | None:
    """("", number of the layer) if one of the row's kernels is that of `path`."""
    for ours in row.ours:
        if match := re.fullmatch(re.escape(ours).replace(r"\*", r"(\d+)"), f"encoder/{path}/kernel"):
            return ("", *match.groups())
    return None


def _joined(own: Tensors, layers: int) -> np.ndarray:
    """Keys and values [P, D] of each layer as peft has them: [P, layers * 2 * D]."""
    parts = [own[f"layer_{i}/attention/core/{kind}"] for i in range(layers) for kind in ("keys", "values")]
    return np.concatenate(parts, axis=1)


def _parted(array: np.ndarray, layers: int, folder: Path) -> Tensors:
    if array.ndim != 2 or array.shape[1] % (2 * layers):
        raise InputError(f"{folder}: prompt_embeddings {array.shape} do not divide into keys and values of {layers} layers")
    names = [f"layer_{i}/attention/core/{kind}" for i in range(layers) for kind in ("keys", "values")]
    return dict(zip(names, np.split(array, 2 * layers, axis=1), strict=True))
