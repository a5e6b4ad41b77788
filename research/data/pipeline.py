"""From examples to batches: tokens and columns for a model, in its batch layout."""

import dataclasses
import math
from typing import Any

from research.data import encode
from research.data.batches import Batches
from research.data.examples import Examples
from research.errors import InputError
from research.tasks.base import TOKEN, WORD, Column


def tokens(model: Any, examples: Examples, keep: bool = True) -> encode.Tokens:
    """Return the tokens of `examples` for an adapted model, with places for the tokens that the method inserts. With `keep`, they are
    cached on disk. Raises InputError if the tokenizer has more token types than the model."""
    c = model.config
    align = model.task.outputs_per == WORD
    encoded = encode.encode(model.tokenizer, examples, c.max_length, c.truncation, c.truncation_head, keep, align)
    types = getattr(model.encoder.config, "type_vocab_size", 0)
    if types and encoded.types.max(initial=0) >= types:
        raise InputError(f"the tokenizer gives tokens of type {encoded.types.max()}, but the model has {types}; they are of two models")
    return dataclasses.replace(encoded.with_places(model.extra_tokens), first_position=model.first_position)


def batches(model: Any, examples: Examples, multiple: int, *, training: bool = False, keep: bool = True) -> Batches:
    """Return the batches of `examples` for an adapted model. Their rows are divisible by `multiple` (the number of devices), and for
    training by the number of microbatches too. With `keep`, the tokens are cached on disk."""
    c, encoded = model.config, tokens(model, examples, keep)
    size, parts, seed = (c.batch_size, c.accumulate, c.seed) if training else (eval_batch_size(model, encoded, multiple), 1, 0)
    columns = {
        name: Column(TOKEN, encoded.at_first_tokens(values)) if per == WORD else Column(per, values)
        for name, (per, values) in model.task.columns(examples.labels, len(examples)).items()
    }
    return Batches(encoded, columns, size, seed=seed, layout=c.packing, multiple=multiple * parts)


def eval_batch_size(model: Any, encoded: encode.Tokens, multiple: int) -> int:
    """Return the examples per evaluation batch: about `eval_batch_tokens` tokens per device at most, almost equal for all batches."""
    most = max(1, round(model.config.eval_batch_tokens / encoded.lengths.mean())) * multiple
    count = math.ceil(len(encoded) / most)
    return math.ceil(len(encoded) / count / multiple) * multiple
