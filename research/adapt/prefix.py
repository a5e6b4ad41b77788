"""Prefix tuning and prompt tuning: trained vectors before the text, as keys and values in every layer or as word embeddings."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from research.adapt.base import Delta, Interceptor, Method
from research.adapt.targets import kernels, keys_of
from research.errors import InputError

WORD = "embeddings/word"
LAST_COLUMN = 0xFFFFFFFF  # the dropout columns of a prefix count down from here, so that they differ from those of any position


@dataclasses.dataclass(frozen=True)
class Prefix(Delta):
    """Prefix tuning: softmax(q [K_p; K]^T / sqrt(d)) [V_p; V] in every layer, with K_p and V_p [P, D] trained.

    Li & Liang 2021, without the network that generates the prefix, like peft with `prefix_projection=False`. Every token of every example
    attends to all P prefix vectors of its layer. The prefix is not part of the row and has no queries, but it takes the positions 0 to
    P - 1, so the positions of the text begin at P. The authors' code and peft, where the prefix is a cache of keys and values, do the same.
    """

    tokens: int
    std: float
    name = "prefix"

    @property
    def first_position(self) -> int:
        """Return P, or 0 for a number of tokens that `init` refuses."""
        return max(self.tokens, 0)

    def init(self, key, encoder):
        if self.tokens < 1:
            raise InputError(f"prefix.tokens={self.tokens}: a prefix needs at least one key and value in each layer; use 1 or more")
        params = {}
        for part in ("key", "value"):
            for path, (_, width) in kernels(encoder, f"attention/{part}", self.name).items():
                name = f"{path.removesuffix(part)}core/{part}s"
                params[name] = self.std * jax.random.normal(keys_of(key, [name])[name], (self.tokens, width))
        return params

    def interceptors(self, delta_params, encoder, batch, key, precision):
        def at(path: str) -> Interceptor:
            def interceptor(core, q, k, v, mask, rows, columns, *bias):
                batch_rows, P = mask.shape[0], self.tokens

                def heads_first(x: jax.Array) -> jax.Array:
                    """Split heads: [P, D] -> [B * H, P, d], equal for each of the B rows."""
                    x = x.reshape(P, -1, q.shape[-1]).swapaxes(0, 1)
                    return jnp.tile(x, (batch_rows, 1, 1))

                k = jnp.concatenate([heads_first(delta_params[f"{path}/keys"]), k], axis=1)
                v = jnp.concatenate([heads_first(delta_params[f"{path}/values"]), v], axis=1)
                mask = jnp.concatenate([jnp.ones((*mask.shape[:-1], P), bool), mask], axis=-1)
                if columns is not None:
                    prefix_columns = jnp.uint32(LAST_COLUMN) - jnp.arange(P, dtype=jnp.uint32)
                    prefix_columns = jnp.broadcast_to(prefix_columns, (*columns.shape[:-1], P))
                    columns = jnp.concatenate([prefix_columns, columns], axis=-1)
                bias = (jnp.pad(x, ((0, 0), (0, 0), (P, 0))) for x in bias)
                return core(q, k, v, mask, rows, columns, *bias)

            return interceptor

        return {path: at(path) for path in {name.rpartition("/")[0] for name in delta_params}}


@dataclasses.dataclass(frozen=True)
class SoftPrompt(Delta):
    """Prompt tuning: P trained vectors [P, D] replace the word embeddings of P tokens inserted after the first token of each example.

    Lester et al. 2021, section 2. The vectors have positions 1 to P, so the positions of the text after them move up by P, and the token
    type of the first token.
    """

    tokens: int
    name = "soft_prompt"

    @property
    def extra_tokens(self) -> int:
        """Return P, or 0 for a number of tokens that `init` refuses."""
        return max(self.tokens, 0)

    def init(self, key, encoder):
        table = encoder.get(f"{WORD}/embedding")
        if table is None:
            raise InputError(f"method=soft_prompt: the encoder has no {WORD}/embedding to insert a prompt into; use another method")
        if not 1 <= self.tokens <= table.shape[0]:
            count = table.shape[0]
            raise InputError(f"soft_prompt.tokens={self.tokens}: the prompt begins as that many of {count} words; use 1 to {count}")
        rows = jax.random.choice(key, table.shape[0], (self.tokens,), replace=False)
        return {f"{WORD}/prompt": jnp.asarray(table)[rows]}

    def matrices(self, delta_params, encoder):
        return {}  # the prompt is looked up like a word embedding, without matrix products

    def interceptors(self, delta_params, encoder, batch, key, precision):
        starts = jnp.take_along_axis(batch["example_starts"], jnp.maximum(batch["segments"] - 1, 0), axis=1)
        offsets = jnp.arange(starts.shape[1])[None] - starts - 1  # of each token in the prompt of the token's example
        in_prompt = (offsets >= 0) & (offsets < self.tokens) & (batch["segments"] > 0)

        def interceptor(embed, tokens):
            prompt = delta_params[f"{WORD}/prompt"][jnp.clip(offsets, 0, self.tokens - 1)]
            return jnp.where(in_prompt[:, :, None], prompt, embed(tokens))

        return {WORD: interceptor}


def prefix(stages: tuple[str, ...], config: Any) -> Method:
    """Train keys and values before those of the text, in every layer (Li & Liang 2021). Default: 20, about where P-tuning v2 (Liu et al.
    2022) finds no further gain in classification. The initial deviation is 0.02, that of BERT's initial parameters, where peft takes 1.
    Training then begins near the pretrained model but not at it, since the prefix takes part in every softmax and the text has other
    positions. A step costs 2/3 of full fine-tuning and 20 more columns of attention, which inference costs too."""
    return Method(deltas=(Prefix(**config.prefix),))


def soft_prompt(stages: tuple[str, ...], config: Any) -> Method:
    """Train vectors that the encoder reads as words before the text (Lester et al. 2021). Defaults: 20 vectors, above which the paper
    gains little; they begin as the embeddings of random words of the vocabulary. A step costs 2/3 of full fine-tuning on texts that are
    20 tokens longer. Inference reads the longer texts too."""
    return Method(deltas=(SoftPrompt(**config.soft_prompt),))
