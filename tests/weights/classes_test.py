"""Which class of a head is which of a task's: by name or by number, never by chance."""

import json

import numpy as np
import pytest

from research.errors import InputError
from research.weights import classes

NUMBERS = tuple(map(str, range(12)))
AS_TEXT = tuple(sorted(NUMBERS))  # 0, 1, 10, 11, 2, ...
UNNAMED = tuple(f"LABEL_{number}" for number in range(12))


def order(theirs, labels, numbered=()):
    """The names of the columns in the order of `labels`."""
    return [theirs[place] for place in classes.places(theirs, labels, numbered, "folder", "weights.head")]


@pytest.mark.parametrize(
    "theirs, labels, wanted",
    [
        (("positive", "negative"), ("negative", "positive"), ["negative", "positive"]),
        (("POS", "Neg"), ("neg", "pos"), ["Neg", "POS"]),
        (("Pos", "pos"), ("pos", "Pos"), ["pos", "Pos"]),
        (UNNAMED, AS_TEXT, [f"LABEL_{number}" for number in AS_TEXT]),
        (UNNAMED, NUMBERS, list(UNNAMED)),
        (("LABEL_2", "LABEL_0", "LABEL_1"), ("0", "1", "2"), ["LABEL_0", "LABEL_1", "LABEL_2"]),
        (("LABEL_1", "LABEL_0"), ("label_0", "Label_1"), ["LABEL_0", "LABEL_1"]),
        (("10", "9", "1"), ("LABEL_1", "LABEL_9", "LABEL_10"), ["1", "9", "10"]),
    ],
)
def test_a_column_goes_to_the_class_of_its_name_or_number(theirs, labels, wanted):
    assert order(theirs, labels) == wanted


def test_a_task_that_fixes_the_order_of_its_classes_gives_them_numbers():
    assert order(("LABEL_1", "LABEL_0"), ("pos", "neg"), ("neg", "pos")) == ["LABEL_1", "LABEL_0"]
    with pytest.raises(InputError, match="its head has the classes LABEL_1, LABEL_0, but the task has pos, neg; leave out weights.head"):
        order(("LABEL_1", "LABEL_0"), ("pos", "neg"))


@pytest.mark.parametrize(
    "theirs, labels",
    [
        (("pos", "neg"), ("good", "bad")),
        (("pos", "neg"), ("neg", "pos", "neutral")),
        (("LABEL_0", "LABEL_1"), ("1", "2")),  # numbers that begin at 1 are not those that begin at 0
        (("LABEL_0", "LABEL_1"), ("neg", "pos")),
        (("pos", "pos"), ("neg", "pos")),
        (("0", "LABEL_0"), ("0", "00")),
    ],
)
def test_names_that_cannot_be_paired_one_to_one_are_refused(theirs, labels):
    with pytest.raises(InputError, match="^folder: its head has the classes .*; leave out weights.head to begin with a new one"):
        order(theirs, labels)


@pytest.mark.parametrize(
    "config, wanted",
    [
        ({}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"id2label": {"2": "c", "0": "a", "1": "b"}}, ("a", "b", "c")),
        ({"id2label": {"0": 0, "1": 1, "2": 10}}, ("0", "1", "10")),
        ({"id2label": {"0": "a", "1": "b"}, "num_labels": 3}, ("LABEL_0", "LABEL_1", "LABEL_2")),
        ({"label2id": {"x": 0, "y": 1, "z": 2}}, ("LABEL_0", "LABEL_1", "LABEL_2")),
    ],
)
def test_names_are_what_transformers_takes_them_for(tmp_path, config, wanted):
    from transformers import BertConfig

    assert classes.names(config, 3, "folder") == wanted
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "num_labels": 3} | config))
    theirs = BertConfig.from_pretrained(tmp_path).id2label
    assert tuple(str(theirs[number]) for number in range(3)) == wanted


@pytest.mark.parametrize(
    "config, complaint",
    [
        ({"id2label": ["a", "b", "c"]}, "id2label in config.json is a list"),
        ({"id2label": {"a": 0, "b": 1, "c": 2}}, "must map numbers to names, but has a, b, c"),
        ({"id2label": {"0": "a", "1": "b"}}, r"config.json names 2 classes \(0: a, 1: b\), but the head has 3 outputs"),
        ({"id2label": {"0": "a", "1": "b", "3": "c"}}, r"names 3 classes \(0: a, 1: b, 3: c\), but the head has 3 outputs"),
        ({"id2label": {"0": "a", "1": None, "2": "c"}}, "names 3 classes"),
        ({"id2label": {}}, "names 0 classes"),
        ({"num_labels": 2}, "names 2 classes"),
        ({"num_labels": "3"}, "num_labels in config.json is '3'"),
    ],
)
def test_names_that_are_not_those_of_the_head_are_refused(config, complaint):
    with pytest.raises(InputError, match=f"^folder: .*{complaint}"):
        classes.names(config, 3, "folder")


@pytest.mark.parametrize(
    "config, size, complaint",
    [
        ({"problem_type": "multi_label_classification"}, 3, "its head has problem_type 'multi_label_classification'"),
        ({"problem_type": "regression"}, 1, "its head has problem_type 'regression'"),
        ({}, 1, "its head has one output"),
    ],
)
def test_a_head_that_does_not_choose_a_class_is_refused(config, size, complaint):
    tensors = {"head/classifier/kernel": np.zeros((4, size)), "head/classifier/bias": np.zeros(size)}
    with pytest.raises(InputError, match=f"^folder: {complaint}, but only heads .*; leave out weights.head"):
        classes.in_order(tensors, config, tuple("abc")[:size], (), "folder")


def test_all_that_belongs_to_an_output_moves_with_it_and_nothing_else():
    kernel, bias, dense = np.arange(6.0).reshape(2, 3), np.arange(3.0), np.arange(4.0).reshape(2, 2)
    tensors = {"head/classifier/kernel": kernel, "head/classifier/bias": bias, "head/dense/kernel": dense}
    found = classes.in_order(tensors, {"id2label": {"0": "b", "1": "c", "2": "a"}}, ("a", "b", "c"), (), "folder")
    assert np.array_equal(found["head/classifier/kernel"], kernel[:, [2, 0, 1]])
    assert np.array_equal(found["head/classifier/bias"], bias[[2, 0, 1]]) and found["head/dense/kernel"] is dense
