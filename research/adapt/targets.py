"""Helpers of deltas: the modules with kernels that they change, their random keys and their dropout."""

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from research.errors import InputError
from research.layers.dropout import dropout, mix, token_salt
from research.params import rules
from research.params.plan import FROZEN, Rules


def kernels(encoder: Mapping[str, Any], targets: str, option: str) -> dict[str, tuple[int, int]]:
    """Return module path -> (m, n) for each module with a kernel [m, n] that a pattern of `targets` (separated by commas) matches.

    Raises InputError, naming `option` and the nearest path, for a pattern without a match.
    """
    shapes = {
        name.removesuffix("/kernel"): leaf.shape for name, leaf in encoder.items() if name.endswith("/kernel") and len(leaf.shape) == 2
    }
    patterns = [pattern.strip() for pattern in targets.split(",") if pattern.strip()]
    if not patterns:
        raise InputError(f"{option} is empty; give patterns of modules, separated by commas, for example attention/query")
    for pattern in patterns:
        rules.check_matches(option, pattern, shapes)
    return {path: shape for path, shape in shapes.items() if any(rules.matches(pattern, path) for pattern in patterns)}


def paths_of(delta_params: Mapping[str, Any]) -> list[str]:
    """Return the sorted paths of the modules that a delta has parameters for."""
    return sorted({name.rpartition("/")[0] for name in delta_params})


def freeze_kernels(encoder: Mapping[str, Any], targets: str, name: str, option: str) -> Rules:
    """Return a rule that freezes the kernels that the delta `name` adds to or multiplies."""
    return {f"under {name}": (f"encoder/({'|'.join(kernels(encoder, targets, option))})/kernel", FROZEN)}


def keys_of(key: jax.Array, names: Any) -> dict[str, jax.Array]:
    """Return a random key for each name, independent of the other names."""
    return {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names}


def dropped(x: jax.Array, rate: float, batch: Any, key: jax.Array | None, path: str) -> jax.Array:
    """Return hidden states x [B, L, D] after dropout, or x without a key. The mask depends on (key, path, example, position, feature).

    DeBERTa's relative-position states have shape [1, 2 L, D] instead, one row for each distance from L - 1 down. Their mask depends on
    (key, path, distance, feature), so that the length of a row does not change it either.
    """
    if key is None or not rate:
        return x
    if x.shape[:2] == batch["segments"].shape:
        row_salt = token_salt(batch)
    else:
        row_salt = mix((x.shape[1] // 2 - jnp.arange(x.shape[1])).astype(jnp.uint32))[None]
    path_salt = jax.random.bits(keys_of(key, [path])[path], (), jnp.uint32)
    columns = jnp.arange(x.shape[-1], dtype=jnp.uint32)[None, None]
    return dropout(x, mix(row_salt[:, :, None] + path_salt), columns, rate)
