"""Which encoder a `config.json` describes."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from research.errors import InputError, nearest
from research.models.bert import Bert, BertConfig
from research.precision import Precision


def _bert(config: dict[str, Any], **options) -> Bert:
    return Bert(BertConfig.from_hf(config), **options)


ENCODERS: dict[str, Callable[..., nn.Module]] = {"bert": _bert}  # by `model_type`


def build(
    config: dict[str, Any],
    *,
    precision: str = "float32",
    pooler: bool = True,
    dropout: float | None = None,
    attention_dropout: float | None = None,
) -> nn.Module:
    """The encoder of a Hugging Face config. A rate of None is the config's own (0.1 where it says nothing).

    Raises InputError on a `model_type` or a `precision` that is not known.
    """
    kind = config.get("model_type")
    if kind not in ENCODERS:
        raise InputError(f"config.json: model_type {kind!r} is not supported; {nearest(str(kind), ENCODERS)}")
    return ENCODERS[kind](
        config,
        precision=Precision(precision),
        pooler=pooler,
        dropout=config.get("hidden_dropout_prob", 0.1) if dropout is None else dropout,
        attention_dropout=config.get("attention_probs_dropout_prob", 0.1) if attention_dropout is None else attention_dropout,
    )
