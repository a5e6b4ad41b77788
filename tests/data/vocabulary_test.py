"""Word vocabulary and word tokenizer."""

import pytest

from research.data import encode, vocabulary
from research.data.examples import Examples

TEXTS = ["A fine film .", "a FILM, it 's fine", "dull . Dull ."]


def test_words_are_lower_case_by_frequency_without_rare_words():
    assert vocabulary.words(TEXTS) == (".", "a", "dull", "film", "fine", "'s", ",", "it")
    assert vocabulary.words(TEXTS, 2) == (".", "a", "dull", "film", "fine")
    assert vocabulary.words(TEXTS, 9) == () == vocabulary.words([])


def test_contractions_are_split_as_in_treebanks_and_no_letter_is_lost():
    assert set(vocabulary.words(["Don't it's re-imagining, U.S. 9/11!"])) == {*"- , . / ! u s 9 11 do n't it 's re imagining".split()}
    assert set(vocabulary.words(["isn't ain'ts n't"])) == {"is", "n't", "ain", "'ts"}
    assert vocabulary.words(["Caf\u00e9 cafe\u0301"]) == ("caf\u00e9",)  # one word, however it is written


def test_ids_are_places_in_the_vocabulary_and_an_unknown_word_is_unk():
    tokenizer = vocabulary.tokenizer(("fine", "film"))
    encoded = tokenizer("Fine zzz film")
    assert encoded["input_ids"] == [3, 1, 4] and encoded["attention_mask"] == [1, 1, 1]
    assert len(tokenizer) == 5 and tokenizer.pad_token_id == 0


def test_only_pairs_have_a_separator():
    tokenizer = vocabulary.tokenizer(("fine", "film"))
    encoded = tokenizer("fine", "film film")
    assert encoded["input_ids"] == [3, 2, 4, 4] and encoded["token_type_ids"] == [0, 1, 1, 1]
    assert (tokenizer.num_special_tokens_to_add(pair=False), tokenizer.num_special_tokens_to_add(pair=True)) == (0, 1)


def test_the_tokenizer_works_with_encode_and_is_part_of_the_fingerprint():
    texts = Examples(("0", "1"), (("a fine film",), ("dull",)), ())
    one, other = vocabulary.tokenizer(("a", "fine", "film")), vocabulary.tokenizer(("fine", "a", "film"))
    assert encode.encode(one, texts, 2).ids.tolist() == [3, 4, 1]  # cut to two words each
    assert encode.fingerprint(one, texts, 2) != encode.fingerprint(other, texts, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("我喜欢这部电影。", "我 喜 欢 这 部 电 影 。"),
        ("iPhone15很好, it's 好用!", "iphone15 很 好 , it 's 好 用 !"),
        ("コーヒーを飲む人々", "コ ー ヒ ー を 飲 む 人 々"),
        ("ที่นี่ดี", "ที่ นี่ ดี"),
        ("한국어 영화", "한국어 영화"),
        ("Ужасный фильм", "ужасный фильм"),
        ("don't我n't", "do n't 我 n't"),
    ],
)
def test_characters_are_words_in_scripts_without_blanks_and_in_no_others(text, words):
    assert set(vocabulary.words([text])) == set(words.split())
    pieces = vocabulary._split(vocabulary.tokenizer(()).backend_tokenizer, text)
    assert pieces == words.split()  # no character is lost


def test_an_older_vocabulary_keeps_its_rule():
    before = vocabulary.tokenizer(("这部电影", "很好", "film"))
    assert before("这部电影 很好 film 我")["input_ids"] == [3, 4, 5, 1]
    now = vocabulary.tokenizer(("很", "好", "film"))
    assert now("很好 film 我们")["input_ids"] == [3, 4, 5, 1, 1]
    texts = Examples(("0",), (("很好 film",),), ())
    assert encode.fingerprint(before, texts, 8) != encode.fingerprint(now, texts, 8)
