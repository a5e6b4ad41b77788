"""Reading and writing of adapters in the format of the `peft` library: `adapter_config.json` and `adapter_model.safetensors`."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from research.errors import InputError, nearest
from research.weights.name_map import Table, rename, to_flax, to_torch
from research.weights.reader import read_object, read_safetensors

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
NAME_PREFIX, PREFIX_TUNING_NAME_PREFIX = "base_model.model.", "base_model."  # prefix tuning: of the head's names
CLASSIFIER = "SEQ_CLS"  # the `task_type` of adapters that have a classifier
TYPES = {"lora": "LORA", "dora": "LORA", "ia3": "IA3", "prefix": "PREFIX_TUNING"}
# Leaf of a delta -> its name in peft, and whether the conversion transposes it.
LEAVES = {"a": ("lora_A.weight", True), "b": ("lora_B.weight", True), "magnitude": ("lora_magnitude_vector", False)}
# Keys of adapter_config.json that are ignored: the tensors imply them, or they only matter in training or inside peft.
IGNORED = {"target_modules", "feedforward_modules", "exclude_modules", "modules_to_save", "layers_to_transform", "layers_pattern"}
IGNORED |= {"token_dim", "num_layers", "num_attention_heads", "encoder_hidden_size", "fan_in_fan_out", "inference_mode"}
IGNORED |= {"lora_dropout", "init_ia3_weights", "init_weights", "eva_config", "loftq_config", "corda_config", "lora_ga_config"}
IGNORED |= {"auto_mapping", "peft_version", "base_model_name_or_path", "revision", "megatron_core", "qalora_group_size"}
READ = {"peft_type", "task_type", "r", "lora_alpha", "use_rslora", "use_dora", "num_virtual_tokens"}
# Accepted values of other keys, besides null and false. Other values of init_lora_weights change the base model too.
ALLOWED = {"bias": ("none",), "init_lora_weights": (True, "gaussian", "orthogonal", "eva"), "num_transformer_submodules": (1,)}
IA3 = {"outputs": (-1, 1), "inputs": (1, -1)}  # shapes of `ia3_l`
PROMPT, DELTA = "prompt_embeddings", r"(.*)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector|ia3_l)"
Tensors = dict[str, np.ndarray]


def write(
    folder: Path, name: str, options: Mapping[str, Any], delta_params: Tensors, head: Tensors, table: Table, shape: Any, base: str
) -> None:
    """Write the delta `name` ("lora", "dora", "ia3" or "prefix") and the head as an adapter of the model `base` (a hub id or folder).

    `options` are the delta's config fields. `delta_params` and `head` are flat parameters, named as under `delta/NAME/` and `head/`.
    `table` is the family's table of names and `shape` the encoder's hyperparameters. Raises InputError for a delta that peft does not
    support, and for a module that is only a part of a module in `transformers`.
    """
    if name not in TYPES:
        raise InputError(f"method={name}: peft has no such adapter; {nearest(name, TYPES)}; --format=huggingface merges mergeable deltas")
    torch_head = to_torch({f"head/{leaf}": array for leaf, array in head.items()}, table, "classifier")
    saved = sorted({leaf.split(".")[0] for leaf in torch_head})
    tensors = {f"{PREFIX_TUNING_NAME_PREFIX if name == 'prefix' else NAME_PREFIX}{leaf}": array for leaf, array in torch_head.items()}
    config = {"peft_type": TYPES[name], "task_type": CLASSIFIER, "base_model_name_or_path": base, "inference_mode": True}
    if name == "prefix":
        config |= {"num_virtual_tokens": options["tokens"], "token_dim": shape.hidden_size, "num_layers": shape.num_hidden_layers}
        config |= {"num_attention_heads": shape.num_attention_heads, "num_transformer_submodules": 1, "prefix_projection": False}
        config |= {"encoder_hidden_size": shape.hidden_size, "modules_to_save": saved}
        tensors["prompt_embeddings"] = _join_prefix(delta_params, shape.num_hidden_layers)
    else:
        modules = {path: module_of(path, table) for path in sorted({leaf.rpartition("/")[0] for leaf in delta_params})}
        config |= {"target_modules": sorted(set(modules.values())), "modules_to_save": saved}
        if name == "ia3":
            config["feedforward_modules"] = sorted({modules[leaf.rpartition("/")[0]] for leaf in delta_params if leaf.endswith("/inputs")})
        else:
            config |= {"r": options["rank"], "lora_alpha": options["alpha"], "lora_dropout": options["dropout"], "bias": "none"}
            config |= {"use_rslora": options["rank_stabilised"], "use_dora": name == "dora"}
        for leaf, array in delta_params.items():
            path, _, last = leaf.rpartition("/")
            torch_leaf, transpose = ("ia3_l", False) if name == "ia3" else LEAVES[last]
            array = array.reshape(IA3[last]) if name == "ia3" else array.T if transpose else array
            tensors[f"{NAME_PREFIX}{modules[path]}.{torch_leaf}"] = np.ascontiguousarray(array)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf8")
    safetensors.numpy.save_file({leaf: np.ascontiguousarray(array) for leaf, array in tensors.items()}, folder / TENSORS)


def read(folder: Path, table: Table, layers: int) -> tuple[str, dict[str, Any], Tensors, Tensors]:
    """Read an adapter for a model of `table` with `layers` layers; return `(name, options, delta_params, head)`, as passed to `write`.

    `options` are those that the files determine. `head` is empty where the adapter has none. Raises InputError where a file is missing or
    damaged, for an unknown kind of adapter, and for tensors that belong to no module of the model.
    """
    config, torch_tensors = read_object(folder / CONFIG), tensors(folder)
    kind = str(config.get("peft_type"))
    name = "dora" if config.get("use_dora") else next((delta for delta, peft_type in TYPES.items() if peft_type == kind), None)
    if name is None:
        raise InputError(f"{folder}: peft_type {kind!r} is not supported; {nearest(kind, TYPES.values())}")
    _check_keys(config, folder)
    delta_params, rest = {}, {}
    for leaf, array in torch_tensors.items():
        if leaf == PROMPT:
            delta_params |= _split_prefix(array, layers, folder)
        elif match := re.fullmatch(DELTA, leaf):
            path, last = path_of(match[1], table), match[2]
            if path is None:
                raise InputError(f"{folder}: {leaf} is of a module that this model does not have")
            if last == "ia3_l":
                delta_params[f"{path}/{'outputs' if array.shape[1] == 1 else 'inputs'}"] = array.reshape(-1)
            else:
                last, transpose = next((flax, transpose) for flax, (torch, transpose) in LEAVES.items() if torch == last)
                delta_params[f"{path}/{last}"] = array.T if transpose else array
        else:
            rest[leaf] = array
    head = to_flax(rest, table, "classifier")
    if unknown := [leaf for leaf in head if not leaf.startswith("head/")]:
        raise InputError(f"{folder}: {unknown[0]} is no parameter of this model's head")
    if head and config.get("task_type") not in (None, CLASSIFIER):
        raise InputError(f"{folder}: its head is for task_type {config['task_type']!r}, not for classes of texts ({CLASSIFIER})")
    return name, _options(name, config), delta_params, {leaf.removeprefix("head/"): array for leaf, array in head.items()}


def tensors(folder: Path) -> Tensors:
    """Return the tensors of an adapter's file, without peft's prefix of names. Raises InputError where the file is missing or damaged."""
    if not (folder / TENSORS).is_file():
        raise InputError(f"{folder}: no {TENSORS} beside {CONFIG}")
    return {
        name.removeprefix(NAME_PREFIX).removeprefix(PREFIX_TUNING_NAME_PREFIX): array
        for name, array in read_safetensors(folder / TENSORS).items()
    }


def is_delta(name: str) -> bool:
    """Return whether the tensor `name` belongs to the delta, and not to a head."""
    return name == PROMPT or re.fullmatch(DELTA, name) is not None


def _check_keys(config: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for a key that changes what the adapter computes and that is not supported here."""
    for key, value in config.items():
        if value and key not in IGNORED | READ and value not in ALLOWED.get(key, ()):
            merged = "merge it with peft's merge_and_unload and use that folder as weights.source"
            raise InputError(f"{folder}: {CONFIG} has {key}={json.dumps(value)}, which is not supported; {merged}")


def _options(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    if name == "prefix":
        return {"tokens": config["num_virtual_tokens"]}
    if name == "ia3":
        return {}
    defaults = {"r": 8, "lora_alpha": 8} | dict(config)  # peft's defaults
    return {"rank": defaults["r"], "alpha": float(defaults["lora_alpha"]), "rank_stabilised": bool(config.get("use_rslora"))}


def module_of(path: str, table: Table) -> str:
    """Return the PyTorch name of the module at the Flax `path` ("layer_0/attention/query"). Raises InputError where it has none alone."""
    kernel = f"encoder/{path}/kernel"
    names = [(row, name) for row in table.rows for flax in row.flax if (name := rename(kernel, flax, row.torch)) is not None]
    if not names or len(names[0][0].flax) > 1:
        what = "is a part of a larger module" if names else "has no name"
        raise InputError(f"{path} {what} in transformers, so peft cannot adapt it; --format=huggingface merges it")
    return table.prefix + names[0][1].removesuffix(".weight")


def path_of(module: str, table: Table) -> str | None:
    """Return the Flax path of a PyTorch module, the inverse of `module_of`; None where the model has no such module."""
    name = f"{module.removeprefix(table.prefix)}.weight"
    for row in table.rows:
        if len(row.flax) == 1 and (kernel := rename(name, row.torch, row.flax[0])) is not None:
            return kernel.removeprefix("encoder/").rpartition("/")[0]
    return None


def _join_prefix(delta_params: Tensors, layers: int) -> np.ndarray:
    """Return the keys and values [P, D] of all layers as one array in peft's layout, [P, layers * 2 * D]."""
    parts = [delta_params[f"layer_{i}/attention/core/{kind}"] for i in range(layers) for kind in ("keys", "values")]
    return np.concatenate(parts, axis=1)


def _split_prefix(array: np.ndarray, layers: int, folder: Path) -> Tensors:
    if array.ndim != 2 or array.shape[1] % (2 * layers):
        raise InputError(f"{folder}: prompt_embeddings {array.shape} cannot be split into keys and values of {layers} layers")
    names = [f"layer_{i}/attention/core/{kind}" for i in range(layers) for kind in ("keys", "values")]
    return dict(zip(names, np.split(array, 2 * layers, axis=1), strict=True))
