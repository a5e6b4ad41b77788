"""Model families: the encoder and heads that a `config.json` describes."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Any

import flax.linen as nn

from research.errors import InputError, nearest
from research.layers.precision import Precision
from research.models import bert
from research.models.bert import Bert, BertConfig
from research.models.bilstm import BiLstmConfig, BiLstmEncoder
from research.models.deberta import Deberta, DebertaConfig
from research.models.gpt2 import Gpt2, Gpt2Config
from research.models.heads import Classifier, LanguageModel, Style, Tagger
from research.models.modernbert import ModernBert, ModernBertConfig
from research.models.textcnn import TextCnn, TextCnnConfig

Config = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Family:
    """A model family, named by `model_type`: functions that turn a config into an encoder and heads.

    `shape` returns the encoder's config, `style` the architecture of classifiers. `lm_style` returns the hidden layer of language model
    heads, `lm_bias` whether their output layer has a bias. `rates` are the config fields for dropout of hidden states and of attention
    weights; `rate` is their default.
    """

    encoder: type[nn.Module]
    shape: Callable[[Config], Any]
    style: Callable[[Config], Style] = lambda config: Style()
    lm_style: Callable[[Config], Style] = lambda config: _lm_style(config)
    lm_bias: Callable[[Config], bool] = lambda config: True
    rates: tuple[str, str] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    rate: float = 0.1


def _lm_style(config: Config, activation: str = "", epsilon: float = 0.0) -> Style:
    shape = FAMILIES[config["model_type"]].shape(config)
    return Style("", activation or shape.hidden_act, epsilon or shape.layer_norm_eps)


def _padding(config: Config, end: int) -> int | None:
    """Return the token id that a classifier treats as padding: the config's `pad_token_id`, else its `eos_token_id`, else `end`."""
    padding, end = config.get("pad_token_id"), config.get("eos_token_id", end)
    return end if padding is None else padding


def _modernbert_style(config: Config) -> Style:
    return Style(
        pooling={"cls": "first", "mean": "mean"}[config.get("classifier_pooling", "cls")],
        activation=config.get("classifier_activation", "gelu"),
        norm=config.get("norm_eps", 1e-5),
        dense_bias=config.get("classifier_bias", False),
        norm_bias=config.get("norm_bias", False),
        tagger_has_hidden=True,
    )


def _shape(traits: bert.Traits) -> Callable[[Config], BertConfig]:
    return functools.partial(BertConfig.from_hf, traits=traits)


_ROBERTA = Family(Bert, _shape(bert.ROBERTA), lambda _: Style("first", "tanh"), lambda config: _lm_style(config, "gelu"))
FAMILIES: dict[str, Family] = {
    "bert": Family(Bert, BertConfig.from_hf),
    "roberta": _ROBERTA,
    "xlm-roberta": dataclasses.replace(_ROBERTA, shape=_shape(bert.XLM_ROBERTA)),
    "distilbert": Family(Bert, _shape(bert.DISTILBERT), lambda _: Style("first", "relu"), rates=("dropout", "attention_dropout")),
    "electra": Family(Bert, _shape(bert.ELECTRA), lambda _: Style("first", "gelu"), lambda config: _lm_style(config, "gelu")),
    "albert": Family(Bert, _shape(bert.ALBERT), rate=0.0),
    "modernbert": Family(
        ModernBert,
        ModernBertConfig.from_hf,
        _modernbert_style,
        _modernbert_style,
        lambda config: config.get("decoder_bias", True),
        rates=("mlp_dropout", "attention_dropout"),
        rate=0.0,
    ),
    "deberta-v2": Family(Deberta, DebertaConfig.from_hf, lambda c: Style("first", c.get("pooler_hidden_act", "gelu"))),
    "gpt2": Family(
        Gpt2,
        Gpt2Config.from_hf,
        lambda config: Style("last", bias=False, padding=_padding(config, 50256)),
        lambda _: Style(),
        lambda _: False,
        ("resid_pdrop", "attn_pdrop"),
    ),
    "bilstm": Family(BiLstmEncoder, BiLstmConfig.of, lambda _: Style("max"), rate=0.5),
    "textcnn": Family(TextCnn, TextCnnConfig.of, lambda _: Style("max"), rate=0.5),
}


def family(config: Config, known: Collection[str] = FAMILIES) -> Family:
    """Return the family of a Hugging Face config. Raise InputError for a `model_type` that is not one of `known`."""
    model_type = config.get("model_type")
    if model_type not in known:
        raise InputError(f"config.json: model_type {model_type!r} is not supported; {nearest(str(model_type), known)}")
    return FAMILIES[model_type]


def build(
    config: Config,
    *,
    precision: str = "float32",
    pooler: bool = True,
    dropout: float | None = None,
    attention_dropout: float | None = None,
) -> nn.Module:
    """Return the encoder of a Hugging Face config. `pooler` adds a pooler if the family has one. A dropout rate of None is the config's.

    Raise InputError for an unknown `model_type` or `precision`, and as the family's config class does.
    """
    model_family = family(config)
    hidden_rate, attention_rate = (config.get(name, model_family.rate) for name in model_family.rates)
    options = {
        "precision": Precision(precision),
        "pooler": pooler,
        "dropout": hidden_rate if dropout is None else dropout,
        "attention_dropout": attention_rate if attention_dropout is None else attention_dropout,
    }
    fields = {field.name for field in dataclasses.fields(model_family.encoder)}  # some encoders have no pooler or no attention
    return model_family.encoder(model_family.shape(config), **{name: value for name, value in options.items() if name in fields})


def head(config: Config, kind: str, classes: int = 0, untied: bool = False, pooling: str = "pooler") -> nn.Module:
    """Return the head of the config's family for a `kind` of `weights.tables.KINDS`. `classes` is ignored by language models.

    `untied` gives a language model's output layer a separate word table. `pooling` is as in `Classifier`.
    """
    model_family = family(config)
    if kind == "classifier":
        return Classifier(classes, pooling, style=model_family.style(config))
    if kind == "tagger":
        return Tagger(classes, style=model_family.style(config))
    return LanguageModel(model_family.lm_style(config), model_family.lm_bias(config), untied)
