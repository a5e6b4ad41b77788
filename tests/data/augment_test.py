"""Data augmentation: the effect of each operation, and copies that depend only on the seed and the example."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.data import augment, loading
from research.data.examples import Examples, rows
from research.tasks.classification import Classification

TEXT = "the quick brown fox jumps over the lazy dog again"
WORDS = TEXT.split()
OPERATIONS = sorted(augment.OPERATIONS)
TASK = Classification("binary", labels=("neg", "pos"))


def examples(*texts, labels=None):
    return rows("train", [text if isinstance(text, tuple) else (text,) for text in texts], labels or ["x"] * len(texts))


def is_subsequence(words, sequence):
    rest = iter(sequence)
    return all(word in rest for word in words)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_originals_come_first_and_copies_keep_labels_and_get_new_ids(operation):
    given_ = examples(TEXT, "fine film", labels=["pos", "neg"])
    result = augment.add(given_, operation, 0.5, 2, 0)
    assert result.take([0, 1]) == given_
    assert result.ids == ("train-0", "train-1", "train-0~1", "train-1~1", "train-0~2", "train-1~2")
    assert result.labels == ("pos", "neg") * 3 and all(text.strip() for (text,) in result.texts)
    assert result.texts[2] != result.texts[0] and result.texts[2] != result.texts[4]


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12), st.floats(0.0, 0.99), st.integers(0, 99))
def test_deletion_and_crop_keep_the_order_and_swap_keeps_all_words(words, rate, seed):
    deleted, swapped, cropped = (augment.OPERATIONS[name](list(words), rate, random.Random(seed)) for name in ("deletion", "swap", "crop"))
    assert deleted and is_subsequence(deleted, words)
    assert Counter(swapped) == Counter(words) and len(swapped) == len(words)
    assert " ".join(cropped) in " ".join(words) and len(cropped) == max(len(words) - max(1, round(rate * len(words))), 1)


def test_is_subsequence():
    assert is_subsequence(["a", "c"], ["a", "b", "c"])
    assert not is_subsequence(["c", "a"], ["a", "b", "c"]) and not is_subsequence(["d"], ["a"])


def test_deletion_removes_the_given_share_and_a_smaller_rate_removes_a_subset():
    words = [str(i) for i in range(4000)]
    remaining = {rate: augment.deletion(words, rate, random.Random("x")) for rate in (0.1, 0.3)}
    for rate, left in remaining.items():
        assert abs(1 - len(left) / len(words) - rate) < 0.03
    assert set(remaining[0.3]) < set(remaining[0.1])
    assert len(augment.deletion(["a", "b"], 0.999999, random.Random(0))) == 1


def test_a_swap_moves_two_words_and_a_higher_rate_moves_more():
    moved = lambda rate: sum(a != b for a, b in zip(augment.swap(WORDS, rate, random.Random(1)), WORDS, strict=True))  # noqa: E731
    assert moved(0.0) == moved(0.1) == 2 < moved(0.5)
    assert augment.swap(["alone"], 0.9, random.Random(0)) == ["alone"] and WORDS == TEXT.split()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_copy_depends_only_on_the_seed_and_the_example(operation):
    texts = [f"{TEXT} {i}" for i in range(6)]
    augmented = augment.add(examples(*texts), operation, 0.3, 1, 0)
    by_id = dict(zip(augmented.ids, augmented.texts, strict=True))
    some = examples(*texts).take([4, 1])
    fewer = augment.add(some, operation, 0.3, 1, 0)
    assert all(by_id[name] == text for name, text in zip(fewer.ids, fewer.texts, strict=True)) and "train-4~1" in fewer.ids
    assert augment.add(some, operation, 0.3, 1, 1).texts != fewer.texts
    same_text = augment.add(examples(*[TEXT] * 6), operation, 0.3, 1, 0)
    assert len(set(same_text.texts[6:])) > 1


def test_the_texts_of_a_pair_are_changed_one_by_one():
    augmented = augment.add(examples((TEXT, TEXT)), "deletion", 0.4, 1, 0)
    first, second = augmented.texts[1]
    assert first != second and is_subsequence(first.split(), WORDS) and is_subsequence(second.split(), WORDS)


def test_unknown_operations_and_operations_that_change_nothing_are_refused(refused):
    refused(lambda: augment.add(examples(TEXT), "delete", 0.1, 1, 0), "data.augment 'delete'", "did you mean 'deletion'", "empty for none")
    for operation in OPERATIONS:
        refused(lambda o=operation: augment.add(examples("one", "word"), o, 0.5, 3, 0), f"data.augment={operation}", "none of 2 training")
    refused(lambda: augment.add(examples(TEXT), "deletion", 0.0, 2, 0), "data.augment_rate=0 changes none of 1")
    assert len(augment.add(examples("one", TEXT), "swap", 0.1, 1, 0)) == 4


def test_only_training_examples_are_augmented_after_the_draw_and_the_fingerprint_changes(folder):
    load = lambda **asked: loading.load(TASK, source="files", path=str(folder), train_examples=16, **asked)  # noqa: E731
    unchanged, more = load(), load(augment="deletion", augment_rate=0.4, augment_copies=2)
    assert {split: len(examples) for split, examples in more.splits.items()} == {"train": 48, "dev": 8, "test": 20}
    assert more.splits["train"].take(range(16)) == unchanged.splits["train"]
    assert all(more.splits[split] == unchanged.splits[split] for split in ("dev", "test"))
    prints = {load(augment="deletion", augment_rate=rate, augment_copies=n, seed=s).fingerprint for rate, n, s in ASKED}
    assert len({unchanged.fingerprint, *prints}) == 1 + len(ASKED) and more.fingerprint in prints
    assert load(augment="", augment_rate=0.4, augment_copies=2).fingerprint == unchanged.fingerprint
    assert isinstance(more.splits["train"], Examples) and len(set(more.splits["train"].ids)) == 48


ASKED = [(0.4, 2, 0), (0.3, 2, 0), (0.4, 1, 0), (0.4, 2, 1)]
