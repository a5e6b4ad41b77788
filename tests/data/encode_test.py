"""Token ids: golden sentences, pairs, truncation and the cache."""

import dataclasses

import numpy as np
import pytest

from research.data import describe, encode
from research.data.examples import Examples, rows
from research.errors import InputError

WORDS = "[PAD] [UNK] [CLS] [SEP] a good ##ness film is not un ##believ ##able and ! ' s long very".split()
CLS, SEP, UNK = WORDS.index("[CLS]"), WORDS.index("[SEP]"), WORDS.index("[UNK]")
SENTENCES = ("A good film!", "goodness   is unbelievable", "The film's LONG")
GOLDEN = ([2, 4, 5, 7, 14, 3], [2, 5, 6, 8, 10, 11, 12, 3], [2, 1, 7, 15, 16, 17, 3])


TYPES = ["input_ids", "token_type_ids", "attention_mask"]


def make_tokenizer(words=tuple(WORDS), lowercase=True, model_input_names=TYPES, **options):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", SEP), ("[CLS]", CLS))
    options |= {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, model_input_names=model_input_names, **options)


@pytest.fixture
def tokenizer():
    return make_tokenizer()


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RESEARCH_CACHE", str(tmp_path))


def examples(*texts):
    return rows("train", [text if isinstance(text, tuple) else (text,) for text in texts], ())


def listed(tokens, name="ids"):
    return [getattr(tokens, name)[i:j].tolist() for i, j in zip(tokens.offsets, tokens.offsets[1:], strict=False)]


def same(one, other):
    pairs = [map(np.asarray, pair) for pair in zip(dataclasses.astuple(one), dataclasses.astuple(other), strict=True)]
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in pairs)


def test_fixed_sentences_have_their_golden_ids(tokenizer):
    actual = encode.encode(tokenizer, examples(*SENTENCES), 32)
    assert listed(actual) == list(GOLDEN)
    assert listed(actual, "types") == [[0] * len(ids) for ids in GOLDEN]
    assert actual.lengths.tolist() == [6, 8, 7] and len(actual) == 3
    assert (actual.ids.dtype, actual.types.dtype, actual.offsets.dtype) == (np.int32, np.int8, np.int64)


def test_a_pair_is_joined_with_types_0_and_1(tokenizer):
    actual = encode.encode(tokenizer, examples(("a good film", "not long !")), 32)
    assert listed(actual) == [[CLS, 4, 5, 7, SEP, 9, 17, 14, SEP]]
    assert listed(actual, "types") == [[0, 0, 0, 0, 0, 1, 1, 1, 1]]


def test_inserted_places_follow_each_first_token(tokenizer):
    encoded = encode.encode(tokenizer, examples(("a good film", "not long !"), ("a", "film"), ("", "a")), 32)
    actual = encoded.with_places(2)
    assert listed(actual) == [[ids[0], 0, 0, *ids[1:]] for ids in listed(encoded)] and listed(actual)[1] == [CLS, 0, 0, 4, SEP, 7, SEP]
    assert listed(actual, "types") == [[0, 0, *types] for types in listed(encoded, "types")]
    assert actual.offsets.tolist() == [0, 11, 18, 24] and actual.lengths.tolist() == (encoded.lengths + 2).tolist()
    assert [getattr(actual, name).dtype for name in ("ids", "types", "offsets")] == [np.int32, np.int8, np.int64]
    assert listed(actual) != [[0, 0, *ids] for ids in listed(encoded)] and not same(actual, encoded.with_places(1))
    assert same(encoded.with_places(0), encoded)


def test_places_have_the_type_of_the_token_they_follow():
    tokens = encode.Tokens(np.array([7, 8, 9], np.int32), np.array([1, 0, 0], np.int8), np.array([0, 2, 3]), np.array([2, 1]))
    assert listed(tokens.with_places(2), "types") == [[1, 1, 1, 0], [0, 0, 0]]
    assert listed(tokens.with_places(2)) == [[7, 0, 0, 8], [9, 0, 0]]


def test_truncation_shortens_the_longer_text_of_a_pair_first(tokenizer):
    first_longer = encode.encode(tokenizer, examples(("a good film is very long", "not a film")), 9)
    assert listed(first_longer) == [[CLS, 4, 5, 7, SEP, 9, 4, 7, SEP]]
    second_longer = encode.encode(tokenizer, examples(("not a film", "a good film is very long")), 9)
    assert listed(second_longer) == [[CLS, 9, 4, 7, SEP, 4, 5, 7, SEP]]
    single = encode.encode(tokenizer, examples("a good film is very long"), 5)
    assert listed(single) == [[CLS, 4, 5, 7, SEP]]


def test_no_example_is_longer_than_max_length_and_short_ones_are_left_alone(tokenizer):
    actual = encode.encode(tokenizer, examples("a " * 50, "a"), 16)
    assert actual.lengths.tolist() == [16, 3]


LONG = "a good film is very long and not un !"  # one token a word


def cut(tokenizer, truncation, head=0, length=6, text=LONG):
    (ids,) = listed(encode.encode(tokenizer, examples(text), length, truncation, head))
    return [tokenizer.convert_ids_to_tokens(i) for i in ids]


def test_a_long_text_keeps_its_head_its_tail_or_both_between_its_special_tokens(tokenizer):
    assert cut(tokenizer, "head") == ["[CLS]", *"a good film is".split(), "[SEP]"] == cut(tokenizer, "head", head=3)
    assert cut(tokenizer, "tail") == ["[CLS]", *"and not un !".split(), "[SEP]"] == cut(tokenizer, "tail", head=3)
    assert cut(tokenizer, "head_tail", 3) == ["[CLS]", *"a good un !".split(), "[SEP]"]
    assert cut(tokenizer, "head_tail", 2) == ["[CLS]", *"a not un !".split(), "[SEP]"]
    assert cut(tokenizer, "head_tail", 4) == ["[CLS]", *"a good film !".split(), "[SEP]"]


@pytest.mark.parametrize("length", [3, 6, 11, 12, 13])
def test_the_tail_equals_that_of_a_tokenizer_that_truncates_on_the_left(length):
    left_tokenizer = make_tokenizer()
    left_tokenizer.truncation_side = "left"
    texts = ["goodness is unbelievable", LONG, "", "a [SEP] film [CLS] is very long indeed"]
    wanted = left_tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    assert listed(encode.encode(make_tokenizer(), examples(*texts), length, "tail")) == wanted
    assert (listed(encode.encode(make_tokenizer(), examples(*texts), length)) == wanted) == (length > 11)


@pytest.mark.parametrize("truncation", encode.TRUNCATIONS)
def test_texts_that_fit_are_not_changed_by_any_truncation(tokenizer, truncation):
    assert same(encode.encode(tokenizer, examples(*SENTENCES), 8, truncation, 4), encode.encode(tokenizer, examples(*SENTENCES), 32))
    assert not same(encode.encode(tokenizer, examples(*SENTENCES), 7, truncation, 4), encode.encode(tokenizer, examples(*SENTENCES), 32))


@pytest.mark.parametrize(
    ("template", "tail", "both"),
    [("$A", "very long and not un !", "a good film not un !"), ("$A [SEP]", "long and not un ! [SEP]", "a good film un ! [SEP]")],
)
def test_special_tokens_stay_wherever_a_tokenizer_puts_them(tokenizer, template, tail, both):
    from tokenizers import processors

    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(template, special_tokens=[("[SEP]", SEP)])
    assert cut(tokenizer, "tail") == tail.split() and cut(tokenizer, "head_tail", 3) == both.split()


def test_an_impossible_truncation_is_refused_in_one_line(tokenizer):
    with pytest.raises(InputError, match="truncation 'tial': did you mean 'tail'"):
        cut(tokenizer, "tial")
    for head in (0, 1, 5, 9):
        with pytest.raises(InputError, match=f"truncation_head={head} of max_length=6: give 2 to 4, so that both ends keep a token"):
            cut(tokenizer, "head_tail", head)
    pair = examples(("a good film", "not long !"))
    for truncation in ("tail", "head_tail"):
        with pytest.raises(InputError, match=f"truncation={truncation} is for tasks of one text.* use truncation=head"):
            encode.encode(tokenizer, pair, 6, truncation, 3)
    assert encode.encode(tokenizer, pair, 6, "head", 3).lengths.tolist() == [6]


def test_every_truncation_has_another_fingerprint(tokenizer):
    one = examples(LONG)
    cuts = [("tail", 0), ("head_tail", 2), ("head_tail", 3), ("head", 0)]
    prints = [encode.fingerprint(tokenizer, one, 6, *each) for each in cuts]
    assert len(set(prints)) == 4 and prints[-1] == encode.fingerprint(tokenizer, one, 6) == encode.fingerprint(tokenizer, one, 6, "head", 9)
    assert prints[0] == encode.fingerprint(tokenizer, one, 6, "tail", 9)


@pytest.mark.parametrize("truncation", encode.TRUNCATIONS)
def test_the_truncation_side_of_the_tokenizer_is_ignored(truncation):
    texts = examples("a good film is not very long !", "goodness film")
    right, left = make_tokenizer(), make_tokenizer(truncation_side="left")
    arguments = (texts, 6, truncation, 2)
    assert encode.fingerprint(right, *arguments) == encode.fingerprint(left, *arguments)
    wanted = {"head": [CLS, 4, 5, 7, 8, SEP], "tail": [CLS, 9, 18, 17, 14, SEP], "head_tail": [CLS, 4, 18, 17, 14, SEP]}
    assert listed(encode.encode(left, *arguments))[0] == wanted[truncation]
    assert left.truncation_side == "left" and left("a good film", truncation=True, max_length=3)["input_ids"] == [CLS, 7, SEP]


def test_a_tokenizer_without_token_types_gives_type_0():
    tokens = encode.encode(make_tokenizer(model_input_names=TYPES[:1]), examples(("a good film", "not long !")), 32)
    assert listed(tokens, "types") == [[0] * 9]


def test_an_empty_text_still_has_its_special_tokens(tokenizer):
    assert listed(encode.encode(tokenizer, examples("", "a"), 8)) == [[CLS, SEP], [CLS, 4, SEP]]


def test_the_second_call_reads_identical_arrays_from_the_cache(tokenizer, monkeypatch):
    first = encode.encode(tokenizer, examples(*SENTENCES), 32)
    monkeypatch.setattr(encode, "_encode", lambda *args: pytest.fail("encoded again"))
    assert same(encode.encode(make_tokenizer(), examples(*SENTENCES), 32), first)
    with pytest.raises(pytest.fail.Exception, match="encoded again"):
        encode.encode(make_tokenizer(), examples(*SENTENCES, "more"), 32)


def test_a_tokenizer_that_has_been_used_has_the_same_fingerprint(tokenizer):
    before = encode.fingerprint(tokenizer, examples(*SENTENCES), 32)
    encode.encode(tokenizer, examples("a long film"), 4)
    tokenizer(["a", "a film"], padding=True)
    assert encode.fingerprint(tokenizer, examples(*SENTENCES), 32) == before


def test_only_the_texts_are_fingerprinted_not_ids_or_labels(tokenizer):
    one = encode.fingerprint(tokenizer, Examples(("x-0",), (("a",),), ("pos",)), 8)
    assert one == encode.fingerprint(tokenizer, examples("a"), 8)


@pytest.mark.parametrize(
    "other",
    [
        lambda: encode.fingerprint(make_tokenizer(), examples("A good film", SENTENCES[1]), 32),
        lambda: encode.fingerprint(make_tokenizer(), examples(SENTENCES[1], SENTENCES[0]), 32),
        lambda: encode.fingerprint(make_tokenizer(), examples(SENTENCES[0] + SENTENCES[1]), 32),
        lambda: encode.fingerprint(make_tokenizer(), examples((SENTENCES[0], SENTENCES[1])), 32),
        lambda: encode.fingerprint(make_tokenizer(), examples(*SENTENCES[:2]), 31),
        lambda: encode.fingerprint(make_tokenizer(lowercase=False), examples(*SENTENCES[:2]), 32),
        lambda: encode.fingerprint(make_tokenizer((*WORDS, "the")), examples(*SENTENCES[:2]), 32),
        lambda: encode.fingerprint(make_tokenizer(split_special_tokens=True), examples(*SENTENCES[:2]), 32),
        lambda: encode.fingerprint(make_tokenizer(model_input_names=TYPES[:1]), examples(*SENTENCES[:2]), 32),
    ],
    ids=["text", "order", "joined", "pair", "max_length", "normalizer", "vocabulary", "special tokens", "types"],
)
def test_the_fingerprint_changes_with(other):
    assert other() != encode.fingerprint(make_tokenizer(), examples(*SENTENCES[:2]), 32)


@pytest.mark.parametrize("truncation", encode.TRUNCATIONS)
def test_lengths_before_truncation_are_kept_and_described(tokenizer, truncation):
    texts = examples("a " * 50, LONG, "a", LONG + " a")
    actual = encode.encode(tokenizer, texts, 12, truncation, 5)
    assert actual.uncut.tolist() == [52, 12, 3, 13] and actual.lengths.tolist() == [12, 12, 3, 12]
    assert same(encode.encode(tokenizer, texts, 12, truncation, 5), actual)  # from the cache
    assert actual.with_places(2).uncut.tolist() == [54, 14, 5, 15]
    dev = encode.encode(tokenizer, examples("a", "a", "a", "a", "a", "a"), 12, truncation, 5)
    lengths = {"train": describe.Lengths.of(actual), "dev": describe.Lengths.of(dev)}
    line = describe.truncation(lengths, 12)
    assert line == "cut to max_length=12 tokens: 20.0% of the texts (train 50.0%, dev 0.0%); the longest has 52 tokens"
    assert describe.truncation({"dev": lengths["dev"]}, 12) == "no text is cut: the longest has 3 tokens, max_length is 12"


def test_the_length_of_a_pair_before_truncation_counts_both_texts(tokenizer):
    actual = encode.encode(tokenizer, examples(("a " * 20, "film " * 30), ("a", "a")), 9)
    assert actual.uncut.tolist() == [53, 5] and actual.lengths.tolist() == [9, 5]


@pytest.mark.parametrize(
    "damage",
    [lambda data: bytes(len(data)), lambda data: data[:-7], lambda data: b"", lambda data: data[:90] + b"\xff" + data[91:]],
    ids=["zeros", "cut short", "empty", "one byte"],
)
def test_a_damaged_cache_file_is_reported_and_made_again(tokenizer, tmp_path, capsys, damage):
    first = encode.encode(tokenizer, examples(*SENTENCES), 32)
    (path,) = (tmp_path / "tokens").iterdir()
    data = path.read_bytes()
    path.write_bytes(damage(data))
    assert same(encode.encode(tokenizer, examples(*SENTENCES), 32), first)
    assert capsys.readouterr().err == f"{path} is damaged; it is made again\n" and path.read_bytes() == data
    assert same(encode.encode(tokenizer, examples(*SENTENCES), 32), first) and not capsys.readouterr().err


def test_no_temporary_file_is_left_in_the_cache(tokenizer, tmp_path):
    encode.encode(tokenizer, examples(*SENTENCES), 32)
    assert [path.suffix for path in (tmp_path / "tokens").iterdir()] == [".npz"]
