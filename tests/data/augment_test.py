"""Changed copies of training texts: what each operation may do, and that chance is a function of the seed and the example."""

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.data import augment, loading
from research.data.examples import Examples, rows
from research.tasks.base import Task

TEXT = "the quick brown fox jumps over the lazy dog again"
WORDS = TEXT.split()
OPERATIONS = sorted(augment.OPERATIONS)
TASK = Task("binary", labels=("neg", "pos"))


def examples(*texts, labels=None):
    return rows("train", [text if isinstance(text, tuple) else (text,) for text in texts], labels or ["x"] * len(texts))


def is_part(words, whole):
    rest = iter(whole)
    return all(word in rest for word in words)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_originals_come_first_and_copies_keep_labels_and_have_ids_of_their_own(operation):
    given_ = examples(TEXT, "fine film", labels=["pos", "neg"])
    found = augment.add(given_, operation, 0.5, 2, 0)
    assert found.take([0, 1]) == given_
    assert found.ids == ("train-0", "train-1", "train-0~1", "train-1~1", "train-0~2", "train-1~2")
    assert found.labels == ("pos", "neg") * 3 and all(text.strip() for (text,) in found.texts)
    assert found.texts[2] != found.texts[0] and found.texts[2] != found.texts[4]


@given(st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=12), st.floats(0.0, 0.99), st.integers(0, 99))
def test_deletion_and_crop_leave_a_part_in_order_and_swap_leaves_all(words, rate, seed):
    deleted, swapped, cropped = (augment.OPERATIONS[name](list(words), rate, random.Random(seed)) for name in ("deletion", "swap", "crop"))
    assert deleted and is_part(deleted, words)
    assert Counter(swapped) == Counter(words) and len(swapped) == len(words)
    assert " ".join(cropped) in " ".join(words) and len(cropped) == max(len(words) - max(1, round(rate * len(words))), 1)


def test_a_part_is_told_from_what_is_none():
    assert is_part(["a", "c"], ["a", "b", "c"]) and not is_part(["c", "a"], ["a", "b", "c"]) and not is_part(["d"], ["a"])


def test_deletion_takes_the_share_that_it_is_told_and_a_smaller_share_is_a_part_of_a_larger():
    words = [str(i) for i in range(4000)]
    kept = {rate: augment.deletion(words, rate, random.Random("x")) for rate in (0.1, 0.3)}
    for rate, left in kept.items():
        assert abs(1 - len(left) / len(words) - rate) < 0.03
    assert set(kept[0.3]) < set(kept[0.1])
    assert len(augment.deletion(["a", "b"], 0.999999, random.Random(0))) == 1


def test_a_swap_moves_two_words_and_more_of_them_more():
    moved = lambda rate: sum(a != b for a, b in zip(augment.swap(WORDS, rate, random.Random(1)), WORDS, strict=True))  # noqa: E731
    assert moved(0.0) == moved(0.1) == 2 < moved(0.5)
    assert augment.swap(["alone"], 0.9, random.Random(0)) == ["alone"] and WORDS == TEXT.split()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_copy_is_a_function_of_the_seed_and_the_example_alone(operation):
    texts = [f"{TEXT} {i}" for i in range(6)]
    found = augment.add(examples(*texts), operation, 0.3, 1, 0)
    by_id = dict(zip(found.ids, found.texts, strict=True))
    some = examples(*texts).take([4, 1])
    fewer = augment.add(some, operation, 0.3, 1, 0)
    assert all(by_id[name] == text for name, text in zip(fewer.ids, fewer.texts, strict=True)) and "train-4~1" in fewer.ids
    assert augment.add(some, operation, 0.3, 1, 1).texts != fewer.texts
    same_text = augment.add(examples(*[TEXT] * 6), operation, 0.3, 1, 0)
    assert len(set(same_text.texts[6:])) > 1


def test_the_texts_of_a_pair_are_changed_one_by_one():
    found = augment.add(examples((TEXT, TEXT)), "deletion", 0.4, 1, 0)
    first, second = found.texts[1]
    assert first != second and is_part(first.split(), WORDS) and is_part(second.split(), WORDS)


def test_what_would_change_nothing_and_what_is_not_known_are_refused(refused):
    refused(lambda: augment.add(examples(TEXT), "delete", 0.1, 1, 0), "data.augment 'delete'", "did you mean 'deletion'", "empty for none")
    for operation in OPERATIONS:
        refused(lambda o=operation: augment.add(examples("one", "word"), o, 0.5, 3, 0), f"data.augment={operation}", "none of 2 training")
    refused(lambda: augment.add(examples(TEXT), "deletion", 0.0, 2, 0), "data.augment_rate=0 changes none of 1")
    assert len(augment.add(examples("one", TEXT), "swap", 0.1, 1, 0)) == 4


def test_only_the_training_split_is_changed_after_it_was_drawn_and_the_fingerprint_says_so(folder):
    load = lambda **asked: loading.load(TASK, source="files", path=str(folder), train_examples=16, **asked)  # noqa: E731
    plain, more = load(), load(augment="deletion", augment_rate=0.4, augment_copies=2)
    assert {split: len(found) for split, found in more.splits.items()} == {"train": 48, "dev": 8, "test": 20}
    assert more.splits["train"].take(range(16)) == plain.splits["train"]
    assert all(more.splits[split] == plain.splits[split] for split in ("dev", "test"))
    prints = {load(augment="deletion", augment_rate=rate, augment_copies=n, seed=s).fingerprint for rate, n, s in ASKED}
    assert len({plain.fingerprint, *prints}) == 1 + len(ASKED) and more.fingerprint in prints
    assert load(augment="", augment_rate=0.4, augment_copies=2).fingerprint == plain.fingerprint
    assert isinstance(more.splits["train"], Examples) and len(set(more.splits["train"].ids)) == 48


ASKED = [(0.4, 2, 0), (0.3, 2, 0), (0.4, 1, 0), (0.4, 2, 1)]
