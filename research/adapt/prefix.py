"""Deltas that put trained vectors before the text: as keys and values in every layer, or as words."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import kernels, keys_of
from research.errors import InputError

WORD = "embeddings/word"
LAST_COLUMN = 0xFFFFFFFF  # dropout's columns of a prefix count down from here, far from any position


@dataclasses.dataclass(frozen=True)
class Prefix(Delta):
    """softmax(q [K_p; K]^T / sqrt(d)) [V_p; V] in every layer, with K_p and V_p [P, D] trained (Li & Liang 2021, without the network
    that makes them, as peft has it with `prefix_projection=False`).

    Every token of every example sees all P of its layer. The prefix has no place in the row and no query, but positions 0 to P - 1: the
    text's own move on, as they do where the prefix is a cache of keys and values, the authors' way and peft's.
    """

    tokens: int
    std: float
    name = "prefix"

    @property
    def first_position(self) -> int:
        """P, and 0 where `init` will refuse."""
        return max(self.tokens, 0)

    def init(self, key, encoder):
        if self.tokens < 1:
            raise InputError(f"prefix.tokens={self.tokens}: without a key and a value nothing would train; use 1 or more")
        found = {}
        for kind in ("key", "value"):
            for path, (_, width) in kernels(encoder, f"attention/{kind}", self.name).items():
                name = f"{path.removesuffix(kind)}core/{kind}s"
                found[name] = self.std * jax.random.normal(keys_of(key, [name])[name], (self.tokens, width))
        return found

    def interceptors(self, own, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            def interceptor(core, q, k, v, mask, rows, columns, *bias):
                examples, P = mask.shape[0], self.tokens

                def heads_first(x: jax.Array) -> jax.Array:
                    """[P, D] -> [B * H, P, d], the same for each of the B rows."""
                    x = x.reshape(P, -1, q.shape[-1]).swapaxes(0, 1)
                    return jnp.tile(x, (examples, 1, 1))

                k = jnp.concatenate([heads_first(own[f"{path}/keys"]), k], axis=1)
                v = jnp.concatenate([heads_first(own[f"{path}/values"]), v], axis=1)
                mask = jnp.concatenate([jnp.ones((*mask.shape[:-1], P), bool), mask], axis=-1)
                if columns is not None:
                    before = jnp.uint32(LAST_COLUMN) - jnp.arange(P, dtype=jnp.uint32)
                    before = jnp.broadcast_to(before, (*columns.shape[:-1], P))
                    columns = jnp.concatenate([before, columns], axis=-1)
                bias = (jnp.pad(x, ((0, 0), (0, 0), (P, 0))) for x in bias)
                return core(q, k, v, mask, rows, columns, *bias)

            return interceptor

        return {path: at(path) for path in {name.rpartition("/")[0] for name in own}}


@dataclasses.dataclass(frozen=True)
class SoftPrompt(Delta):
    """P trained vectors [P, D] stand in P places after the first token of each example, instead of embeddings of words
    (Lester et al. 2021, section 2). They have positions 1 to P, so the text's own move on by P, and the type of the first token.
    """

    tokens: int
    name = "soft_prompt"

    @property
    def extra_tokens(self) -> int:
        """P, and none where `init` will refuse."""
        return max(self.tokens, 0)

    def init(self, key, encoder):
        table = encoder.get(f"{WORD}/embedding")
        if table is None:
            raise InputError(f"soft_prompt: the encoder has no {WORD}/embedding in whose place a prompt could stand")
        if not 1 <= self.tokens <= table.shape[0]:
            count = table.shape[0]
            raise InputError(f"soft_prompt.tokens={self.tokens}: it begins as so many of the {count} words; use 1 to {count}")
        rows = jax.random.choice(key, table.shape[0], (self.tokens,), replace=False)
        return {f"{WORD}/prompt": jnp.asarray(table)[rows]}

    def matrices(self, own, encoder):
        return {}  # it stands where words stand

    def interceptors(self, own, encoder, batch, key, precision):
        began = jnp.take_along_axis(batch["example_starts"], jnp.maximum(batch["segments"] - 1, 0), axis=1)
        places = jnp.arange(began.shape[1])[None] - began - 1
        here = (places >= 0) & (places < self.tokens) & (batch["segments"] > 0)

        def interceptor(embed, tokens):
            prompt = own[f"{WORD}/prompt"][jnp.clip(places, 0, self.tokens - 1)]
            return jnp.where(here[:, :, None], prompt, embed(tokens))

        return {WORD: interceptor}


def prefix(stages: tuple[str, ...], config: Any) -> Method:
    """Trained keys and values before those of the text, in every layer (Li & Liang 2021). Default: 20, about where P-tuning v2 (Liu
    et al. 2022) sees classification stop gaining. They are drawn with the deviation that BERT's own parameters begin with, 0.02, where
    peft takes 1: then the model begins near the frozen one, though not at it, since a prefix takes its part of every softmax, and the
    text moves to other positions. Costs 2 passes' work of 3, and 20 more columns of attention, now and when used."""
    return Method(deltas=(Prefix(**config.prefix),))


def soft_prompt(stages: tuple[str, ...], config: Any) -> Method:
    """Trained vectors read as words before the text (Lester et al. 2021). Defaults: 20, past which the paper gains little, begun as
    embeddings of random words of the vocabulary. Costs 2 passes' work of 3 over texts that are 20 tokens longer, now and when used."""
    return Method(deltas=(SoftPrompt(**config.soft_prompt),))
