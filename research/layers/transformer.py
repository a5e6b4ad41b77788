"""What the layers of Transformers are made of, whatever the family.

Letters in shapes: B rows of a batch, L tokens of a row, E examples of a row, D hidden size, F feed-forward size,
H attention heads, d = D / H.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from research.errors import InputError, nearest
from research.layers.activations import gelu
from research.layers.attention import Core
from research.layers.precision import Precision

ACTIVATIONS: dict[str, Callable] = {
    "gelu": gelu,
    "gelu_new": lambda x: jax.nn.gelu(x.astype(jnp.float32), approximate=True),
    "gelu_pytorch_tanh": lambda x: jax.nn.gelu(x.astype(jnp.float32), approximate=True),
    "relu": lambda x: jax.nn.relu(x.astype(jnp.float32)),
    "silu": lambda x: jax.nn.silu(x.astype(jnp.float32)),
    "tanh": lambda x: jnp.tanh(x.astype(jnp.float32)),
}
Batch = dict[str, jax.Array]


def check(name: str, activation: str, hidden: int, heads: int) -> None:
    """Raises InputError for an activation (the config's field `name`) that is not known, or heads that do not divide the hidden size."""
    if activation not in ACTIVATIONS:
        raise InputError(f"config.json: {name} {activation!r}: {nearest(activation, ACTIVATIONS)}")
    if hidden % heads:
        raise InputError(f"config.json: hidden_size {hidden} does not divide by {heads} attention heads")


def only(config: dict[str, Any], **wanted: Any) -> None:
    """Raises InputError where a field of a `config.json` is there and is not what is wanted: all that an encoder can do."""
    for name, value in wanted.items():
        if config.get(name, value) not in (value, None):
            raise InputError(f"config.json: {name} {config[name]!r} is not supported; only {value!r} is")


def dense(precision: Precision, features: int, std: float, name: str, bias: bool = True) -> nn.Dense:
    """A dense layer in `precision`, whose kernel begins normal with deviation `std`."""
    init = nn.initializers.normal(std)
    return nn.Dense(features, use_bias=bias, dot_general=precision.dot_general, kernel_init=init, name=name)


def same_segment(segments: jax.Array) -> jax.Array:
    """Which token may read which, [B, 1, L, L]: those of its own segment.

    Queries in padding read the first segment, as they do in a padded batch elsewhere: outputs agree at every place.
    """
    return (jnp.maximum(segments, 1)[:, :, None] == segments[:, None, :])[:, None]


def by_row(salt: jax.Array | None) -> jax.Array | None:
    """The salt of each token [B, L] for dropout of states: [B, L, 1]."""
    return None if salt is None else salt[:, :, None]


def attend(
    x: jax.Array,
    batch: Batch,
    mask: jax.Array,
    salt: jax.Array | None,
    heads: int,
    project: Callable[[str], nn.Module],
    core: Core,
    turn: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]] = lambda q, k: (q, k),
) -> jax.Array:
    """Multi-head self-attention before its output layer: [B, L, D] -> [B, L, D].

    `project` gives the layers called "query", "key" and "value"; `turn` changes queries and keys [B * H, L, d] before they meet.
    """
    (B, L, D), H = x.shape, heads
    heads_first = lambda y: y.reshape(B, L, H, D // H).swapaxes(1, 2).reshape(B * H, L, D // H)  # noqa: E731
    q, k, v = (heads_first(project(name)(x)) for name in ("query", "key", "value"))
    y = core(*turn(q, k), v, mask, *places(batch, salt, H))
    return y.reshape(B, H, L, D // H).swapaxes(1, 2).reshape(B, L, D)


def places(batch: Batch, salt: jax.Array | None, heads: int) -> tuple[jax.Array | None, jax.Array | None]:
    """Rows [B, H, L, 1] and columns [B, 1, 1, L] of the attention weights, for dropout."""
    if salt is None:
        return None, None
    head = jnp.arange(heads, dtype=jnp.uint32)[None, :, None, None] * jnp.uint32(0x85EBCA6B)
    return salt[:, None, :, None] ^ head, batch["positions"][:, None, None, :].astype(jnp.uint32)
