"""The modules with kernels that deltas change, and the random keys and dropout of what is added to them."""

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
    """Path of each module with a kernel [m, n] that `targets` (patterns apart by commas) cover -> (m, n).

    Raises InputError, naming `option` and the nearest path, for a pattern that covers none.
    """
    shapes = {
        name.removesuffix("/kernel"): leaf.shape for name, leaf in encoder.items() if name.endswith("/kernel") and len(leaf.shape) == 2
    }
    patterns = [pattern.strip() for pattern in targets.split(",") if pattern.strip()]
    if not patterns:
        raise InputError(f"{option} is empty; give patterns of modules, apart by commas, for example attention/query")
    for pattern in patterns:
        rules.check_matches(option, pattern, shapes)
    return {path: shape for path, shape in shapes.items() if any(rules.matches(pattern, path) for pattern in patterns)}


def paths_of(own: Mapping[str, Any]) -> list[str]:
    """The paths under which parameters of a delta stand: those of the modules that it changes."""
    return sorted({name.rpartition("/")[0] for name in own})


def under(encoder: Mapping[str, Any], targets: str, name: str, option: str) -> Rules:
    """The rule by which the kernels that a delta `name` adds to, or multiplies, stay frozen."""
    return {f"under {name}": (f"encoder/({'|'.join(kernels(encoder, targets, option))})/kernel", FROZEN)}


def keys_of(key: jax.Array, names: Any) -> dict[str, jax.Array]:
    """A key for each name, whatever other names there are."""
    return {name: jax.random.fold_in(key, zlib.crc32(name.encode())) for name in names}


def dropped(x: jax.Array, rate: float, batch: Any, key: jax.Array | None, path: str) -> jax.Array:
    """Dropout of states [B, L, D], a function of (key, path, example, position, feature); without a key, `x`.

    What a layer reads beside tokens, [1, 2 L, D], stands for distances from L - 1 down: DeBERTa's. There it is one of (key, path,
    distance, feature), so that it does not depend on the length of a row either.
    """
    if key is None or not rate:
        return x
    if x.shape[:2] == batch["segments"].shape:
        places = token_salt(batch)
    else:
        places = mix((x.shape[1] // 2 - jnp.arange(x.shape[1])).astype(jnp.uint32))[None]
    interceptor = jax.random.bits(keys_of(key, [path])[path], (), jnp.uint32)
    columns = jnp.arange(x.shape[-1], dtype=jnp.uint32)[None, None]
    return dropout(x, mix(places[:, :, None] + interceptor), columns, rate)
