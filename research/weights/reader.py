"""Reading of a model's folder: its config, and its tensors under PyTorch names."""

import importlib
from pathlib import Path
from typing import Any

import flax.serialization
import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from research.errors import InputError
from research.storage import parse_json

SINGLE, INDEX, MSGPACK = "model.safetensors", "model.safetensors.index.json", "flax_model.msgpack"
PICKLE = "pytorch_model.bin"
# Flax names of what PyTorch calls `weight`. A Flax kernel is [in, out], a PyTorch weight [out, in].
FLAX_WEIGHTS = ("kernel", "embedding", "scale")


def read_config(folder: Path) -> dict[str, Any]:
    """Return the content of `config.json`. Raises InputError where it is missing or is not a JSON object."""
    return read_object(folder / "config.json")


def weight_files(folder: Path, pickle: bool = False) -> list[Path]:
    """Return the files that hold the weights, in order of name: `model.safetensors`, else the shards of its index, else
    `flax_model.msgpack`, else, with `pickle`, `pytorch_model.bin`.

    Raises InputError where there are none (with a list of the files that are there), or a shard is missing.
    """
    if (folder / SINGLE).is_file():
        return [folder / SINGLE]
    if (folder / INDEX).is_file():
        return sorted(_shards(folder))
    if (folder / MSGPACK).is_file():
        return [folder / MSGPACK]
    if (folder / PICKLE).is_file():
        if pickle:
            return [folder / PICKLE]
        option = "--config.weights.pickle=True (it needs PyTorch)"
        raise InputError(f"{folder}: {PICKLE} is a pickle, which is not read unless asked for: {option}; or convert it to {SINGLE}")
    there = sorted(path.name for path in folder.iterdir())
    raise InputError(f"{folder}: no {SINGLE}, {INDEX} or {MSGPACK}; there are: {', '.join(there) or 'no files'}")


def read_tensors(folder: Path, pickle: bool = False) -> dict[str, np.ndarray]:
    """Read the tensors of a folder, under PyTorch names and in PyTorch layout; floats become float32, integers keep their dtype.

    Raises InputError where a file is missing or damaged, or a shard does not hold the tensors that the index lists for it.
    """
    files = weight_files(folder, pickle)
    if files[0].name == PICKLE:
        tensors = _read_pickle(files[0])
    elif files[0].name == MSGPACK:
        tensors = _read_msgpack(files[0])
    elif files[0].name == SINGLE:
        tensors = read_safetensors(files[0])
    else:
        tensors = _read_shards(folder)
    return {name: _float32(tensor) for name, tensor in tensors.items()}


def read_object(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file. Raises InputError where it is missing or is not a JSON object."""
    try:
        contents = parse_json(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        there = ", ".join(sorted(p.name for p in path.parent.iterdir())) or "no files"
        raise InputError(f"{path.parent}: no {path.name}; there are: {there}") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(contents, dict):
        raise InputError(f"{path}: a JSON object is expected, but this is a {type(contents).__name__}")
    return contents


def _shards(folder: Path) -> dict[Path, set[str]]:
    """Return the shards that the index lists, each with the names of its tensors. Raises InputError where a shard is missing."""
    weight_map = read_object(folder / INDEX).get("weight_map")
    if not weight_map or not isinstance(weight_map, dict):
        raise InputError(f"{folder / INDEX}: no weight_map")
    shards = {folder / file: {name for name in weight_map if weight_map[name] == file} for file in weight_map.values()}
    missing = sorted(path.name for path in shards if not path.is_file())
    if missing:
        raise InputError(f"{folder}: missing shards {', '.join(missing)}, which {INDEX} lists")
    return shards


def _read_shards(folder: Path) -> dict[str, np.ndarray]:
    tensors = {}
    for path, names in _shards(folder).items():
        shard = read_safetensors(path)
        if names != shard.keys():
            raise InputError(f"{path}: {INDEX} and this shard disagree about {', '.join(sorted(names ^ shard.keys())[:3])}")
        tensors |= shard
    return tensors


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a safetensors file. Raises InputError where the file is damaged or its header does not match its size."""
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a whole safetensors file ({error})") from error


def _read_msgpack(path: Path) -> dict[str, np.ndarray]:
    try:
        nested = flax.serialization.msgpack_restore(path.read_bytes())
        flat = flax.traverse_util.flatten_dict(nested)
        return dict(_as_torch(names, np.asarray(array)) for names, array in flat.items())
    except (ValueError, TypeError, AssertionError) as error:
        raise InputError(f"{path}: not a whole msgpack file of Flax parameters ({error})") from error


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    """Read the tensors of a pickle with PyTorch's loader that unpickles only tensors. Raises InputError where it cannot."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise InputError(f"{path}: only PyTorch can read this, and it is not installed; convert it to {SINGLE} elsewhere") from None
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        return {name: (tensor.float() if tensor.is_floating_point() else tensor).numpy() for name, tensor in tensors.items()}
    except Exception as error:  # PyTorch, its unpickler and its archive reader raise many types
        raise InputError(f"{path}: not a whole file of tensors ({next(iter(str(error).splitlines()), '')})") from error


def _as_torch(names: tuple[str, ...], array: np.ndarray) -> tuple[str, np.ndarray]:
    *modules, last = names
    name = ".".join([*modules, "weight" if last in FLAX_WEIGHTS else last])
    return name, array.T if last == "kernel" else array


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False) if jnp.issubdtype(array.dtype, jnp.floating) else array
