"""Tables of the parameter names of each model family: in PyTorch's `transformers`, and in the Flax models here."""

import dataclasses

from research.weights.name_map import Row, Table


def _one(torch: str, flax: str) -> Row:
    return Row(torch, (flax,))


def _dense(torch: str, flax: str, bias: bool = True) -> tuple[Row, ...]:
    kernel = Row(f"{torch}.weight", (f"{flax}/kernel",), transpose=True)
    return (kernel, _one(f"{torch}.bias", f"{flax}/bias")) if bias else (kernel,)


def _fused(torch: str, *flax: str, transpose: bool) -> tuple[Row, Row]:
    """Return the rows of one dense layer in PyTorch that is several dense layers in Flax."""
    kernels, biases = (tuple(f"{name}/{leaf}" for name in flax) for leaf in ("kernel", "bias"))
    return Row(f"{torch}.weight", kernels, transpose), Row(f"{torch}.bias", biases)


def _norm(torch: str, flax: str) -> tuple[Row, Row]:
    return _one(f"{torch}.weight", f"{flax}/scale"), _one(f"{torch}.bias", f"{flax}/bias")


def _lm_head(bias: str, dense: str = "", norm: str = "", decoder: str = "") -> tuple[Row, ...]:
    """Return the rows of a language model's head, given the PyTorch names of its layers ("" for a layer that it does not have)."""
    before = (*_dense(dense, "head/dense"), *_norm(norm, "head/norm")) if dense else ()
    return (*before, *((_one(bias, "head/bias"),) if bias else ()), _one(f"{decoder}.weight", "head/words"))


EMBEDDINGS = (
    _one("embeddings.word_embeddings.weight", "encoder/embeddings/word/embedding"),
    _one("embeddings.position_embeddings.weight", "encoder/embeddings/position/embedding"),
    _one("embeddings.token_type_embeddings.weight", "encoder/embeddings/type/embedding"),
    *_norm("embeddings.LayerNorm", "encoder/embeddings/norm"),
)
POOLER = _dense("pooler.dense", "encoder/pooler")
CLASSIFIER = _dense("classifier", "head/classifier")
DENSE_FIRST = (*_dense("classifier.dense", "head/dense"), *_dense("classifier.out_proj", "head/classifier"))


def _post_norm(layer: str, *parts: str) -> tuple[Row, ...]:
    """Return the rows of post-norm layers such as BERT's.

    `parts` are the PyTorch names of query, key, value, output, attention norm, up, down and MLP norm.
    """
    query, key, value, output, attention_norm, up, down, mlp_norm = (f"{layer}.*.{part}" for part in parts)
    denses = {"attention/query": query, "attention/key": key, "attention/value": value, "attention/output": output}
    rows = [row for flax, torch in (denses | {"mlp/up": up, "mlp/down": down}).items() for row in _dense(torch, f"encoder/layer_*/{flax}")]
    norms = (*_norm(attention_norm, "encoder/layer_*/attention/norm"), *_norm(mlp_norm, "encoder/layer_*/mlp/norm"))
    return (*rows, *norms)


def _bert_parts(query: str, key: str, value: str) -> tuple[str, ...]:
    inputs = tuple(f"attention.self.{name}" for name in (query, key, value))
    return (*inputs, "attention.output.dense", "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm")


BERT_LAYERS = _post_norm("encoder.layer", *_bert_parts("query", "key", "value"))
BUFFERS = r"embeddings\.(position|token_type)_ids"
OLD_ENDINGS = ((".gamma", ".weight"), (".beta", ".bias"))

BERT = Table(
    rows=(*EMBEDDINGS, *BERT_LAYERS, *POOLER),
    prefix="bert.",
    heads={
        "classifier": CLASSIFIER,
        "tagger": CLASSIFIER,
        "masked_lm": _lm_head(
            "cls.predictions.bias", "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.decoder"
        ),
    },
    ignored=rf"{BUFFERS}|cls\.predictions\.decoder\.bias|cls\.seq_relationship\..*|qa_outputs\..*",
    aliases=OLD_ENDINGS,
    hub="Bert",
    tokenizer="BertTokenizer",
)
ROBERTA = Table(
    rows=BERT.rows,
    prefix="roberta.",
    heads={
        "classifier": DENSE_FIRST,
        "tagger": CLASSIFIER,
        "masked_lm": _lm_head("lm_head.bias", "lm_head.dense", "lm_head.layer_norm", "lm_head.decoder"),
    },
    ignored=rf"{BUFFERS}|lm_head\.decoder\.bias|qa_outputs\..*",
    aliases=OLD_ENDINGS,
    hub="Roberta",
    tokenizer="RobertaTokenizer",
)
DISTILBERT = Table(
    rows=(
        *EMBEDDINGS[:2],
        *EMBEDDINGS[3:],
        *_post_norm(
            "transformer.layer",
            *(f"attention.{name}_lin" for name in ("q", "k", "v", "out")),
            *("sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm"),
        ),
    ),
    prefix="distilbert.",
    heads={
        "classifier": (*_dense("pre_classifier", "head/dense"), *CLASSIFIER),
        "tagger": CLASSIFIER,
        "masked_lm": _lm_head("vocab_projector.bias", "vocab_transform", "vocab_layer_norm", "vocab_projector"),
    },
    ignored=rf"{BUFFERS}|qa_outputs\..*",
    hub="DistilBert",
    tokenizer="BertTokenizer",
)
ELECTRA = Table(
    rows=(*EMBEDDINGS, *_dense("embeddings_project", "encoder/embeddings/projection"), *BERT_LAYERS),
    prefix="electra.",
    heads={
        "classifier": DENSE_FIRST,
        "tagger": CLASSIFIER,
        "masked_lm": _lm_head(
            "generator_lm_head.bias", "generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head"
        ),
    },
    ignored=rf"{BUFFERS}|discriminator_predictions\..*|qa_outputs\..*",
    hub="Electra",
    tokenizer="BertTokenizer",
)
ALBERT = Table(
    rows=(
        *EMBEDDINGS,
        *_dense("encoder.embedding_hidden_mapping_in", "encoder/embeddings/projection"),
        *_post_norm(
            "encoder.albert_layer_groups",
            *(f"albert_layers.0.attention.{name}" for name in ("query", "key", "value", "dense", "LayerNorm")),
            *(f"albert_layers.0.{name}" for name in ("ffn", "ffn_output", "full_layer_layer_norm")),
        ),
        *_dense("pooler", "encoder/pooler"),
    ),
    prefix="albert.",
    heads={
        "classifier": CLASSIFIER,
        "tagger": CLASSIFIER,
        "masked_lm": _lm_head("predictions.bias", "predictions.dense", "predictions.LayerNorm", "predictions.decoder"),
    },
    ignored=rf"{BUFFERS}|predictions\.decoder\.bias|sop_classifier\..*|qa_outputs\..*",
    hub="Albert",
    tokenizer="AlbertTokenizer",
)
MODERNBERT = Table(
    rows=(
        _one("embeddings.tok_embeddings.weight", "encoder/embeddings/word/embedding"),
        *_norm("embeddings.norm", "encoder/embeddings/norm"),
        *_fused("layers.*.attn.Wqkv", *(f"encoder/layer_*/attention/{name}" for name in ("query", "key", "value")), transpose=True),
        *_dense("layers.*.attn.Wo", "encoder/layer_*/attention/output"),
        *_norm("layers.*.attn_norm", "encoder/layer_*/attention/norm"),
        *_fused("layers.*.mlp.Wi", "encoder/layer_*/mlp/up", "encoder/layer_*/mlp/gate", transpose=True),
        *_dense("layers.*.mlp.Wo", "encoder/layer_*/mlp/down"),
        *_norm("layers.*.mlp_norm", "encoder/layer_*/mlp/norm"),
        *_norm("final_norm", "encoder/layer_$/final_norm"),
    ),
    prefix="model.",
    heads={
        "classifier": (*_dense("head.dense", "head/dense"), *_norm("head.norm", "head/norm"), *CLASSIFIER),
        "tagger": (*_dense("head.dense", "head/dense"), *_norm("head.norm", "head/norm"), *CLASSIFIER),
        "masked_lm": _lm_head("decoder.bias", "head.dense", "head.norm", "decoder"),
    },
    hub="ModernBert",
)
DEBERTA = Table(
    rows=(
        *EMBEDDINGS,
        _one("encoder.rel_embeddings.weight", "encoder/embeddings/distance"),
        *_norm("encoder.LayerNorm", "encoder/embeddings/distance_norm"),
        *_post_norm("encoder.layer", *_bert_parts("query_proj", "key_proj", "value_proj")),
        *_dense("encoder.layer.*.attention.self.pos_key_proj", "encoder/layer_*/attention/pos_key"),
        *_dense("encoder.layer.*.attention.self.pos_query_proj", "encoder/layer_*/attention/pos_query"),
    ),
    prefix="deberta.",
    heads={
        "classifier": (*_dense("pooler.dense", "head/dense"), *CLASSIFIER),
        "tagger": CLASSIFIER,
        "masked_lm": BERT.heads["masked_lm"],
    },
    ignored=rf"{BUFFERS}|cls\.predictions\.decoder\.bias|(lm|mask)_predictions\..*|qa_outputs\..*",
    hub="DebertaV2",
    tokenizer="DebertaV2Tokenizer",
)
GPT2 = Table(
    rows=(
        _one("wte.weight", "encoder/embeddings/word/embedding"),
        _one("wpe.weight", "encoder/embeddings/position/embedding"),
        *_fused("h.*.attn.c_attn", *(f"encoder/layer_*/attention/{name}" for name in ("query", "key", "value")), transpose=False),
        *(dataclasses.replace(row, transpose=False) for row in _dense("h.*.attn.c_proj", "encoder/layer_*/attention/output")),
        *_norm("h.*.ln_1", "encoder/layer_*/attention/norm"),
        *(dataclasses.replace(row, transpose=False) for row in _dense("h.*.mlp.c_fc", "encoder/layer_*/mlp/up")),
        *(dataclasses.replace(row, transpose=False) for row in _dense("h.*.mlp.c_proj", "encoder/layer_*/mlp/down")),
        *_norm("h.*.ln_2", "encoder/layer_*/mlp/norm"),
        *_norm("ln_f", "encoder/layer_$/final_norm"),
    ),
    prefix="transformer.",
    heads={"classifier": _dense("score", "head/classifier", bias=False), "tagger": CLASSIFIER, "lm": _lm_head("", decoder="lm_head")},
    ignored=r"h\.\d+\.attn\.(bias|masked_bias)",
    hub="GPT2",
    tokenizer="GPT2Tokenizer",
)

XLM_ROBERTA = dataclasses.replace(ROBERTA, hub="XLMRoberta", tokenizer="XLMRobertaTokenizer")

# By the `model_type` of config.json.
TABLES = {"bert": BERT, "roberta": ROBERTA, "xlm-roberta": XLM_ROBERTA, "distilbert": DISTILBERT, "electra": ELECTRA, "albert": ALBERT}
TABLES |= {"modernbert": MODERNBERT, "deberta-v2": DEBERTA, "gpt2": GPT2}
