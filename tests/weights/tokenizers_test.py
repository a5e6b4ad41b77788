"""The fast tokenizer of every family: read from its vocabulary files, with the same ids as `AutoTokenizer`, for texts and pairs."""

import functools
import io
import json

import pytest
import sentencepiece
from tokenizers import ByteLevelBPETokenizer

from research.errors import InputError
from research.weights import tiny
from tests.weights.families import tokenizer_of

TEXTS = ["the best film of the year", "it was not the worst film", "a quiet year", "why the film was made it does not say"]
PAIR = ("the film", "not a year")


def pieces(folder, name: str):
    """Write a SentencePiece model, trained on `TEXTS`, to the file `name`; return its processor."""
    out = io.BytesIO()
    special = {"bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]", "pad_piece": "[PAD]", "user_defined_symbols": "[MASK]"}
    if name == "sentencepiece.bpe.model":
        special = {}
    ids = {"pad_id": 0, "unk_id": 1, "bos_id": 2, "eos_id": 3} if special else {}
    options = {"vocab_size": 40, "model_type": "unigram", "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(TEXTS * 20), model_writer=out, **options, **ids, **special)
    (folder / name).write_bytes(out.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def byte_pairs(folder):
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 20, vocab_size=300, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"])
    trained.save_model(str(folder))


def words(folder):
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(" ".join(TEXTS).split()))]))


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra"])
def test_a_pair_in_bert_is_cls_a_sep_b_sep_with_types_0_and_1(tmp_path, family):
    words(tmp_path)
    tokenizer = tokenizer_of(tmp_path, family, 100)
    out = tokenizer(*PAIR, return_token_type_ids=True)
    assert tokenizer.convert_ids_to_tokens(out["input_ids"]) == ["[CLS]", "the", "film", "[SEP]", "not", "a", "year", "[SEP]"]
    assert out["token_type_ids"] == [0] * 4 + [1] * 4


def test_a_pair_in_roberta_has_two_separators_between_and_one_type(tmp_path):
    byte_pairs(tmp_path)
    tokenizer = tokenizer_of(tmp_path, "roberta", 400)
    out = tokenizer(*PAIR, return_token_type_ids=True)
    tokens = tokenizer.convert_ids_to_tokens(out["input_ids"])
    assert tokens[0] == "<s>" and tokens[-1] == "</s>" and tokens.count("</s>") == 3
    middle = tokens.index("</s>")
    assert tokens[middle : middle + 2] == ["</s>", "</s>"]
    assert set(out["token_type_ids"]) == {0}, "RoBERTa has one token type"


def test_gpt2_adds_no_special_tokens(tmp_path):
    byte_pairs(tmp_path)
    tokenizer = tokenizer_of(tmp_path, "gpt2", 400)
    assert tokenizer.decode(tokenizer(TEXTS[0])["input_ids"]) == TEXTS[0]
    assert tokenizer.num_special_tokens_to_add(pair=True) == 0


@pytest.mark.parametrize(
    "family, name", [("albert", "spiece.model"), ("deberta-v2", "spm.model"), ("xlm-roberta", "sentencepiece.bpe.model")]
)
def test_pieces_are_those_of_sentencepiece_itself(tmp_path, family, name):
    model = pieces(tmp_path, name)
    tokenizer = tokenizer_of(tmp_path, family, 100)
    ids = tokenizer(TEXTS[1])["input_ids"]
    first, last = ("<s>", "</s>") if family == "xlm-roberta" else ("[CLS]", "[SEP]")
    assert tokenizer.convert_ids_to_tokens(ids) == [first, *model.encode(TEXTS[1], out_type=str), last]
    pair = tokenizer.convert_ids_to_tokens(tokenizer(*PAIR)["input_ids"])
    assert pair.count(last) == (3 if family == "xlm-roberta" else 2)


def test_a_folder_without_the_familys_file_is_an_error_that_names_it(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({}))
    with pytest.raises(InputError, match="tokenizer_config.json, but neither tokenizer.json nor spm.model$"):
        tokenizer_of(tmp_path, "deberta-v2", 10)
    with pytest.raises(InputError, match="tokenizer_config.json, but no tokenizer.json$"):
        tokenizer_of(tmp_path, "modernbert", 10)


def contradicting(folder):
    """Write a vocabulary with capitals and accents, and a `tokenizer.json` with it whose rules lowercase all texts."""
    more = ["The", "FILM", "film", "é", "École", "ecole", "the", "##s", "你", "好", "<new>"]
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in (*tiny.VOCABULARY, *more)))
    rules = json.loads(tiny._tokenizer().to_str())
    rules["model"]["vocab"] = {token: i for i, token in enumerate((*tiny.VOCABULARY, *more))}
    (folder / "tokenizer.json").write_text(json.dumps(rules))


EARLY = {"content": "a", "lstrip": True, "rstrip": True, "single_word": True, "normalized": False, "special": False}
BERT = [
    None,
    {},
    {"do_lower_case": False},
    {"do_lower_case": True},
    {"do_lower_case": False, "strip_accents": True},
    {"do_lower_case": True, "strip_accents": False},
    {"tokenize_chinese_chars": False},
    {"split_special_tokens": True},
    {"cls_token": "<new>"},
    {"extra_special_tokens": ["film"]},
    {"added_tokens_decoder": {"5": EARLY}},
    {"model_input_names": ["input_ids", "attention_mask"]},
    {"truncation_side": "left"},
    {"model_max_length": 4},
    *({"tokenizer_class": name, "do_lower_case": False} for name in ("BertTokenizer", "BertTokenizerFast", "PreTrainedTokenizerFast")),
    *({"tokenizer_class": name, "do_lower_case": False} for name in ("TokenizersBackend", "DistilBertTokenizer", "NoSuchTokenizer")),
]
PAIRS = [None, {}, {"add_prefix_space": True}, {"trim_offsets": False}, {"add_bos_token": True}, {"split_special_tokens": True}]
PAIRS += [{"tokenizer_class": "GPT2Tokenizer"}, {"tokenizer_class": "RobertaTokenizerFast"}]
PIECES = [None, {}, {"do_lower_case": False}, {"do_lower_case": True}, {"keep_accents": True}, {"add_prefix_space": False}]
FILES = {"albert": "spiece.model", "deberta-v2": "spm.model", "xlm-roberta": "sentencepiece.bpe.model"}
TABLE = [
    *(("bert", contradicting, settings) for settings in BERT),
    *((family, contradicting, {"do_lower_case": False}) for family in ("distilbert", "electra")),
    *((family, byte_pairs, settings) for family in ("roberta", "gpt2") for settings in PAIRS),
    *((family, functools.partial(pieces, name=name), settings) for family, name in FILES.items() for settings in PIECES),
    *(("modernbert", contradicting, settings) for settings in (None, {"tokenizer_class": "BertTokenizer", "do_lower_case": False})),
]
HARD = ["The FILM film's École!", "the [SEP] film <s> of </s> a<|endoftext|> year [MASK]", "你好 film", "  two  spaces\tand a\nline "]


@pytest.mark.parametrize("family, write, settings", TABLE, ids=lambda value: "" if callable(value) else json.dumps(value))
def test_ids_and_types_are_those_of_autotokenizer_for_all_settings(tmp_path, family, write, settings):
    from transformers import AutoTokenizer

    write(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    fast, auto = tokenizer_of(tmp_path, family, 1000), AutoTokenizer.from_pretrained(tmp_path)
    for columns in ((HARD,), (HARD, HARD[::-1])):
        encoded, wanted = (tokenizer(*columns, verbose=False) for tokenizer in (fast, auto))
        assert encoded["input_ids"] == wanted["input_ids"] and encoded.get("token_type_ids") == wanted.get("token_type_ids")


@pytest.mark.parametrize(
    "settings, complaint",
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "asks for BertJapaneseTokenizer, which is not a fast tokenizer"),
        ({"auto_map": {"AutoTokenizer": [None, "mine.Tokenizer"]}}, "asks for custom code"),
        ({"cls_token": {"a": "b"}}, "the tokenizer cannot be read as a BertTokenizer"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_is_a_one_line_error(tmp_path, settings, complaint):
    words(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=complaint) as caught:
        tokenizer_of(tmp_path, "bert", 100)
    assert "\n" not in str(caught.value)
