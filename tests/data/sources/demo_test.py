"""Built-in demo data: correct English, deterministic, and not solvable by the words of training alone."""

import math
import re
from collections import Counter

import pytest

from research.data.sources import demo

REVIEWS = demo.reviews()
NEGATED = re.compile(r" (was|were) (not|never|by no means|hardly)\b| did not ")
CONTRASTED = re.compile(r"\b(although|even though|despite|granted)\b", re.IGNORECASE)


def words(text):
    return re.findall(r"[^\W\d_]+", text.lower())


def lexicon(split):
    return {word for table in (demo.ADJECTIVES, demo.STORY_ADJECTIVES, demo.VERBS) for group in table[split].values() for word in group}


def naive_bayes(rows):
    """Return a naive Bayes classifier trained on `rows`, with one added to each word count."""
    counts = {label: Counter(word for text, target in rows if target == label for word in words(text)) for label in demo.LABELS}
    known = set().union(*counts.values())
    denominators = {label: sum(count.values()) + len(known) for label, count in counts.items()}

    def classify(text):
        known_words = [word for word in words(text) if word in known]
        return max(demo.LABELS, key=lambda label: sum(math.log((counts[label][word] + 1) / denominators[label]) for word in known_words))

    return classify


def accuracy(classify, rows):
    return sum(classify(text) == label for text, label in rows) / len(rows)


def test_the_splits_have_their_sizes_and_are_balanced():
    assert {split: len(rows) for split, rows in REVIEWS.items()} == {"train": 480, "dev": 120, "test": 1000}
    for rows in REVIEWS.values():
        assert Counter(label for _, label in rows) == {label: len(rows) // 2 for label in demo.LABELS}


def test_no_text_occurs_twice():
    texts = [text for rows in REVIEWS.values() for text, _ in rows]
    assert len(set(texts)) == len(texts) == 1600


def test_the_reviews_are_the_same_every_time_and_others_for_another_seed():
    assert demo.reviews() == demo.reviews(0) == REVIEWS
    assert demo.reviews(1) != REVIEWS


def test_the_sentiment_words_of_a_split_occur_in_no_other():
    for split, rows in REVIEWS.items():
        used = {word for text, _ in rows for word in words(text)}
        for other in REVIEWS:
            forms = lexicon(other) | {f"{word}d" for word in lexicon(other)} | {f"{word}ed" for word in lexicon(other)}
            assert bool(used & forms) == (other == split), (split, other, used & forms)


@pytest.mark.parametrize("pattern", [NEGATED, CONTRASTED])
@pytest.mark.parametrize("split", demo.SIZES)
def test_negation_and_contrast_occur_in_every_split_and_class(split, pattern):
    matches = Counter(label for text, label in REVIEWS[split] if pattern.search(text))
    assert 0.08 < matches.total() / len(REVIEWS[split]) < 0.25
    assert min(matches[label] for label in demo.LABELS) > 0.3 * matches.total()


def test_the_test_split_has_constructions_that_train_and_dev_lack():
    for construction in ("despite the", "granted, ", "by no means", "hardly", "i was struck by", "my friends all called"):
        assert any(construction in text.lower() for text, _ in REVIEWS["test"])
        assert not any(construction in text.lower() for split in ("train", "dev") for text, _ in REVIEWS[split])


def test_every_review_is_one_to_three_sentences():
    for rows in REVIEWS.values():
        for text, _ in rows:
            sentences = re.findall(r"[A-Z][^.]*\.(?: |$)", text)
            assert 1 <= len(sentences) <= 3 and "".join(sentences) == text


def test_a_bag_of_training_words_does_not_classify_the_test_split():
    classify = naive_bayes(REVIEWS["train"])
    assert accuracy(classify, REVIEWS["train"]) > 0.85
    assert accuracy(classify, REVIEWS["test"]) < 0.65
    assert accuracy(naive_bayes(REVIEWS["test"][:500]), REVIEWS["test"][500:]) > 0.7


@pytest.mark.parametrize(("noun", "verb"), [("waiters", "were"), ("series", "was"), ("soup", "was")])
def test_verbs_agree_with_their_nouns(noun, verb):
    assert any(f"the {noun} {verb} " in text.lower() for text, _ in REVIEWS["test"])
    wrong = {"was": "were", "were": "was"}[verb]
    assert not any(f"the {noun} {wrong} " in text.lower() for rows in REVIEWS.values() for text, _ in rows)
