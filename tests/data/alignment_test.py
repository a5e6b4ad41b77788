"""Words, tokens and characters: the same alignment as that of transformers for texts that are split into words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import weights
from research.data import encode
from research.data.alignment import first_tokens, words_of_tokens
from research.data.examples import Examples
from research.tasks.base import word_spans

WORDS = st.lists(st.text("aB7-.'éß中\u00a0\u200b🙂", min_size=1, max_size=6), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def tokenizers():
    """Return the tiny model's WordPiece tokenizer, and a byte-level one whose tokens begin with the blank before the word."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = {piece: i for i, piece in enumerate(["<s>", *letters, "Ġa", "Ġa7", "aB"])}
    backend = Tokenizer(models.BPE(pieces, [("Ġ", "a"), ("Ġa", "7"), ("a", "B")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return weights.load("tiny")[2], PreTrainedTokenizerFast(tokenizer_object=backend)


def examples(texts):
    return Examples(tuple(map(str, range(len(texts)))), tuple((text,) for text in texts), ())


def encoded(tokenizer, texts, length=1000, truncation="head", head=0):
    return encode.encode(tokenizer, examples(texts), length, truncation, head, keep=False, align=True)


@given(words=WORDS)
def test_words_of_tokens_are_the_word_ids_of_transformers(tokenizers, words):
    text = " ".join(words)
    for tokenizer in tokenizers:
        out, split = tokenizer(text, return_offsets_mapping=True), tokenizer(words, is_split_into_words=True)
        assert out["input_ids"] == split["input_ids"]
        actual, reference = words_of_tokens(text, out["offset_mapping"]), [-1 if i is None else i for i in split.word_ids()]
        blanks = [end - begin == 1 and text[begin:end] == " " for begin, end in out["offset_mapping"]]
        assert all(a == b for a, b, blank in zip(actual, reference, blanks, strict=True) if not blank)
        assert all(word == -1 for word, blank in zip(actual, blanks, strict=True) if blank)


@given(words=WORDS)
def test_words_characters_and_tokens_lead_back_to_each_other(tokenizers, words):
    text = "  ".join(words) + "\t"
    spans = word_spans(text)
    assert [text[begin:end] for begin, end in spans] == words
    for tokenizer in tokenizers:
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        for (begin, end), word in zip(offsets, words_of_tokens(text, offsets), strict=True):
            last = {i for i, (first, stop) in enumerate(spans) if first < end <= stop and end > begin}
            assert last == ({word} if word >= 0 else set())


@given(words=WORDS, length=st.integers(4, 12), truncation=st.sampled_from(("head", "tail", "head_tail")))
def test_first_tokens_are_kept_with_the_tokens_and_words_are_counted(tokenizers, words, length, truncation):
    texts = [" ".join(words), "one two", " ".join(reversed(words))]
    tokenizer = tokenizers[0]
    complete, cut = encoded(tokenizer, texts), encoded(tokenizer, texts, length, truncation, 2)
    assert complete.word_offsets.tolist() == cut.word_offsets.tolist() == [0, len(words), len(words) + 2, 2 * len(words) + 2]
    for i in range(3):
        before, after = (tokens.words[slice(*tokens.offsets[i : i + 2])] for tokens in (complete, cut))
        size, end = len(after), 2 if truncation == "head_tail" else 1
        remaining = np.r_[before[:end], before[len(before) - size + end :]] if truncation != "head" else np.r_[before[: size - 1], -1]
        assert after.tolist() == remaining.tolist()
    firsts = cut.words[cut.words >= 0]
    assert len(set(firsts)) == len(firsts) == cut.word_offsets[-1] - cut.words_without_tokens
    assert (complete.words_without_tokens > 0) == any(not word.strip("\u00a0\u200b") for word in words)


def test_values_of_words_stand_at_their_first_tokens_and_at_inserted_places_is_none(tokenizers):
    tokens = encoded(tokenizers[0], ["ab c", "d"]).with_places(2)
    values = tokens.at_first_tokens(np.array([5, 6, 7]))
    assert values.tolist() == [0, 0, 0, 5, 0, 6, 0, 0, 0, 0, 7, 0]
    assert tokens.at_first_tokens(np.zeros(0, np.int32)).tolist() == [0] * 12
    assert first_tokens(np.array([-1, 0, 0, 2, 2, -1])).tolist() == [-1, 0, -1, 2, -1, -1]


def test_the_alignment_is_cached_apart_from_tokens_without_one(tokenizers):
    first, second = (encode.encode(tokenizers[0], examples(["a b", "c"]), 9, align=True) for _ in range(2))
    basic = encode.encode(tokenizers[0], examples(["a b", "c"]), 9)
    assert second.words.tolist() == first.words.tolist() == [-1, 0, 1, -1, -1, 2, -1]
    assert basic.words is None and basic.words_without_tokens == 0 and basic.ids.tolist() == first.ids.tolist()
