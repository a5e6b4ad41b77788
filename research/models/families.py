"""Which encoder, and which heads, a `config.json` describes."""

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
    """A `model_type`: its encoder and that one's shape, how its classifiers are built, and what stands before the words in a language
    model and whether these have a bias. `rates` are the config's fields for dropout of states and of attention weights."""

    encoder: type[nn.Module]
    shape: Callable[[Config], Any]
    style: Callable[[Config], Style] = lambda config: Style()
    before_words: Callable[[Config], Style] = lambda config: _before_words(config)
    words_bias: Callable[[Config], bool] = lambda config: True
    rates: tuple[str, str] = ("hidden_dropout_prob", "attention_probs_dropout_prob")
    rate: float = 0.1  # where the config says nothing


def _before_words(config: Config, activation: str = "", epsilon: float = 0.0) -> Style:
    shape = FAMILIES[config["model_type"]].shape(config)
    return Style("", activation or shape.hidden_act, epsilon or shape.layer_norm_eps)


def _padding(config: Config, end: int) -> int | None:
    """Return the id that a classifier takes for padding: the config's own, else that of the token that ends texts, `end` by default."""
    padding, end = config.get("pad_token_id"), config.get("eos_token_id", end)
    return end if padding is None else padding


def _modernbert_style(config: Config) -> Style:
    return Style(
        pooling={"cls": "first", "mean": "mean"}[config.get("classifier_pooling", "cls")],
        activation=config.get("classifier_activation", "gelu"),
        norm=config.get("norm_eps", 1e-5),
        dense_bias=config.get("classifier_bias", False),
        norm_bias=config.get("norm_bias", False),
        tags_like_this=True,
    )


def _shape(traits: bert.Traits) -> Callable[[Config], BertConfig]:
    return functools.partial(BertConfig.from_hf, traits=traits)


_ROBERTA = Family(Bert, _shape(bert.ROBERTA), lambda _: Style("first", "tanh"), lambda config: _before_words(config, "gelu"))
FAMILIES: dict[str, Family] = {
    "bert": Family(Bert, BertConfig.from_hf),
    "roberta": _ROBERTA,
    "xlm-roberta": dataclasses.replace(_ROBERTA, shape=_shape(bert.XLM_ROBERTA)),
    "distilbert": Family(Bert, _shape(bert.DISTILBERT), lambda _: Style("first", "relu"), rates=("dropout", "attention_dropout")),
    "electra": Family(Bert, _shape(bert.ELECTRA), lambda _: Style("first", "gelu"), lambda config: _before_words(config, "gelu")),
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
    """The family of a Hugging Face config. Raises InputError on a `model_type` that is not one of `known`."""
    kind = config.get("model_type")
    if kind not in known:
        raise InputError(f"config.json: model_type {kind!r} is not supported; {nearest(str(kind), known)}")
    return FAMILIES[kind]


def build(
    config: Config,
    *,
    precision: str = "float32",
    pooler: bool = True,
    dropout: float | None = None,
    attention_dropout: float | None = None,
) -> nn.Module:
    """The encoder of a Hugging Face config, with its pooler where wanted and where it can have one. A rate of None is the config's own.

    Raises InputError on a `model_type` or a `precision` that is not known.
    """
    found = family(config)
    own, attention = (config.get(name, found.rate) for name in found.rates)
    options = {
        "precision": Precision(precision),
        "pooler": pooler,
        "dropout": own if dropout is None else dropout,
        "attention_dropout": attention if attention_dropout is None else attention_dropout,
    }
    has = {field.name for field in dataclasses.fields(found.encoder)}  # not all have a pooler, or attention
    return found.encoder(found.shape(config), **{name: value for name, value in options.items() if name in has})


def head(config: Config, kind: str, classes: int = 0, own_words: bool = False, pooling: str = "pooler") -> nn.Module:
    """The head of a `kind` of `weights.tables.KINDS` that this family's models have: of so many classes, or for words.

    `own_words`: a language model's last layer is not the table that tokens are read from. `pooling` is as in `Classifier`.
    """
    found = family(config)
    if kind == "classifier":
        return Classifier(classes, pooling, style=found.style(config))
    if kind == "tagger":
        return Tagger(classes, style=found.style(config))
    return LanguageModel(found.before_words(config), found.words_bias(config), own_words)
