"""Scores of confusion matrices, by hand and beside scikit-learn."""

import numpy as np
import pytest

from research.errors import InputError
from research.tasks import metrics as m
from research.tasks.metrics import classification_scores

BINARY = [[50, 10], [5, 35]]  # rows the truth: 60 negatives, 40 positives
THREE = [[4, 1, 0], [2, 3, 1], [0, 0, 9]]


def test_binary_scores_are_of_the_second_class():
    actual = classification_scores(BINARY)
    assert actual["accuracy"] == pytest.approx(0.85)
    assert actual["precision"] == pytest.approx(35 / 45)
    assert actual["recall"] == pytest.approx(35 / 40)
    assert actual["f1"] == pytest.approx(2 * 35 / (45 + 40))
    swapped = classification_scores([[35, 5], [10, 50]])
    assert swapped["f1"] == pytest.approx(2 * 50 / (60 + 55)) and swapped["f1"] != pytest.approx(actual["f1"])


def test_rows_are_the_truth_and_columns_the_prediction():
    turned = classification_scores(np.transpose(BINARY))
    assert turned["precision"] == pytest.approx(35 / 40) and turned["recall"] == pytest.approx(35 / 45)


def test_macro_scores_are_unweighted_means_over_classes():
    actual = classification_scores(THREE)
    assert actual["accuracy"] == pytest.approx(16 / 20)
    assert actual["macro_precision"] == pytest.approx((4 / 6 + 3 / 4 + 9 / 10) / 3)
    assert actual["macro_recall"] == pytest.approx((4 / 5 + 3 / 6 + 9 / 9) / 3)
    assert actual["macro_f1"] == pytest.approx((8 / 11 + 6 / 10 + 18 / 19) / 3)
    for name in ("precision", "recall", "f1"):
        assert actual[name] == actual[f"macro_{name}"]
    weighted = (5 * 8 / 11 + 6 * 6 / 10 + 9 * 18 / 19) / 20
    assert actual["macro_f1"] != pytest.approx(weighted)


def test_scores_are_of_the_class_that_is_asked_for():
    actual = classification_scores(BINARY, 0)
    assert (actual["precision"], actual["recall"]) == (pytest.approx(50 / 55), pytest.approx(50 / 60))
    assert actual["macro_f1"] == classification_scores(BINARY)["macro_f1"] and actual["f1"] != classification_scores(BINARY)["f1"]
    three = classification_scores(THREE, 2)
    assert three["f1"] == pytest.approx(18 / 19) and three["macro_f1"] == classification_scores(THREE)["macro_f1"] != three["f1"]


def test_the_scores_of_each_class_stand_side_by_side():
    each = m.of_classes(THREE)
    assert each["precision"] == pytest.approx([4 / 6, 3 / 4, 9 / 10]) and each["recall"] == pytest.approx([4 / 5, 3 / 6, 1])
    assert each["support"].tolist() == [5, 6, 9]


def test_the_positive_class_is_named_where_there_is_one():
    assert m.positive_class(("neg", "pos"), "") == "pos" and m.positive_class(("neg", "pos"), "neg") == "neg"
    assert m.positive_class(("a", "b", "c"), "") is None and m.positive_class(("a", "b", "c"), "c") == "c"
    with pytest.raises(InputError, match="positive='posi' is not a class; did you mean 'pos'"):
        m.positive_class(("neg", "pos"), "posi")
    assert [m.title(name, "pos") for name in ("f1", "macro_f1", "accuracy")] == ["f1 of 'pos'", "macro_f1", "accuracy"]
    assert m.title("f1", None) == "f1" and m.shown(None) == ("accuracy", "macro_f1")
    assert set(m.NAMES) == set(classification_scores(BINARY))


def test_binary_macro_is_not_the_second_class():
    actual = classification_scores(BINARY)
    assert actual["macro_f1"] == pytest.approx((100 / 115 + 70 / 85) / 2)


def test_a_class_that_never_occurs_does_not_count_and_one_that_is_only_predicted_does():
    absent = classification_scores([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    assert absent["macro_f1"] == pytest.approx((6 / 7 + 8 / 9) / 2)
    invented = classification_scores([[3, 1, 0], [0, 3, 1], [0, 0, 0]])
    assert invented["macro_f1"] == pytest.approx((6 / 7 + 6 / 8 + 0) / 3)


def test_a_score_without_denominator_is_zero():
    actual = classification_scores([[7, 0], [3, 0]])
    assert (actual["precision"], actual["recall"], actual["f1"], actual["accuracy"]) == (0.0, 0.0, 0.0, 0.7)


def test_scores_are_plain_numbers():
    assert {type(value) for value in classification_scores(np.array(THREE, np.float32)).values()} == {float}


@pytest.mark.oracle
@pytest.mark.parametrize("classes", [2, 3, 6])
@pytest.mark.parametrize("used", ["all", "one absent", "one only predicted", "one never predicted"])
def test_scores_equal_scikit_learns(classes, used):
    from sklearn import metrics

    for seed in range(20):
        rng = np.random.default_rng(seed)
        true, predicted = rng.integers(0, classes, (2, 40))
        true = np.where(rng.random(40) < 0.4, predicted, true)
        if used in ("one absent", "one only predicted"):
            true[true == 0] = 1
        if used in ("one absent", "one never predicted"):
            predicted[predicted == 0] = 1
        confusion = np.zeros((classes, classes), int)
        np.add.at(confusion, (true, predicted), 1)
        actual = classification_scores(confusion)
        assert actual["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
        kinds = {"macro_": {"average": "macro"}, "": {"average": "binary" if classes == 2 else "macro"}}
        for prefix, kind in kinds.items():
            expected = metrics.precision_recall_fscore_support(true, predicted, zero_division=0, **kind)[:3]
            assert [actual[prefix + name] for name in ("precision", "recall", "f1")] == pytest.approx(expected)
