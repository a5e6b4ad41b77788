"""Functions that the Transformer layers of all model families share.

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


def check_shape(name: str, activation: str, hidden: int, heads: int) -> None:
    """Raise InputError for an unknown `activation` (the value of the config's field `name`), or if `heads` does not divide `hidden`."""
    if activation not in ACTIVATIONS:
        raise InputError(f"config.json: {name} {activation!r}: {nearest(activation, ACTIVATIONS)}")
    if hidden % heads:
        raise InputError(f"config.json: hidden_size {hidden} does not divide by {heads} attention heads")


def require(config: dict[str, Any], **supported: Any) -> None:
    """Raise InputError if a field of a `config.json` is set to another value than the only one that the encoder supports."""
    for name, value in supported.items():
        if config.get(name, value) not in (value, None):
            raise InputError(f"config.json: {name} {config[name]!r} is not supported; only {value!r} is")


def residual_std(config: Any) -> float:
    """Return the initial standard deviation of layers whose outputs are added to the residual stream (GPT-2's paper, section 2.3)."""
    return config.initializer_range / (2 * config.num_hidden_layers) ** 0.5


def dense(precision: Precision, features: int, std: float, name: str, bias: bool = True) -> nn.Dense:
    """Return a dense layer in `precision`, with a kernel initialised from a normal distribution with standard deviation `std`."""
    init = nn.initializers.normal(std)
    return nn.Dense(features, use_bias=bias, dot_general=precision.dot_general, kernel_init=init, name=name)


def same_segment(segments: jax.Array) -> jax.Array:
    """Return an attention mask [B, 1, L, L] that is true for two tokens of the same segment.

    Padding tokens attend to the first segment, as in Hugging Face's padded batches, so that outputs also agree in padding.
    """
    return (jnp.maximum(segments, 1)[:, :, None] == segments[:, None, :])[:, None]


def per_token(salt: jax.Array | None) -> jax.Array | None:
    """Return each token's salt [B, L] as rows [B, L, 1] for `Dropout` of hidden states, or None for None."""
    return None if salt is None else salt[:, :, None]


def attend(
    x: jax.Array,
    batch: Batch,
    mask: jax.Array,
    salt: jax.Array | None,
    heads: int,
    project: Callable[[str], nn.Module],
    core: Core,
    transform: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]] = lambda q, k: (q, k),
) -> jax.Array:
    """Return multi-head self-attention without its output layer: [B, L, D] -> [B, L, D].

    `project` returns the layers named "query", "key" and "value". `transform` is applied to the queries and keys [B * H, L, d].
    """
    (B, L, D), H = x.shape, heads
    heads_first = lambda y: y.reshape(B, L, H, D // H).swapaxes(1, 2).reshape(B * H, L, D // H)  # noqa: E731
    q, k, v = (heads_first(project(name)(x)) for name in ("query", "key", "value"))
    y = core(*transform(q, k), v, mask, *attention_salts(batch, salt, H))
    return y.reshape(B, H, L, D // H).swapaxes(1, 2).reshape(B, L, D)


def attention_salts(batch: Batch, salt: jax.Array | None, heads: int) -> tuple[jax.Array | None, jax.Array | None]:
    """Return rows [B, H, L, 1] and columns [B, 1, 1, L] for dropout of attention weights, or two None without a salt."""
    if salt is None:
        return None, None
    head = jnp.arange(heads, dtype=jnp.uint32)[None, :, None, None] * jnp.uint32(0x85EBCA6B)
    return salt[:, None, :, None] ^ head, batch["positions"][:, None, None, :].astype(jnp.uint32)
