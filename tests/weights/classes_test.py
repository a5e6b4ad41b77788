"""Matching of a head's classes with a task's: by name or by number, or an error."""

import json

import numpy as np
import pytest

from research.errors import InputError
from research.weights import classes

NUMBERS = tuple(map(str, range(12)))
AS_TEXT = tuple(sorted(NUMBERS))  # 0, 1, 10, 11, 2, ...
UNNAMED = tuple(f"LABEL_{number}" for number in range(12))


def order(head_names, labels, numbered=()):
    """Return the names of the head's outputs in the order of `labels`."""
    return [head_names[place] for place in classes.places(head_names, labels, numbered, "folder", "weights.head")]


@pytest.mark.parametrize(
    "head_names, labels, wanted",
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
def test_an_output_is_matched_by_its_name_or_number(head_names, labels, wanted):
    assert order(head_names, labels) == wanted


def test_a_task_that_fixes_the_order_of_its_classes_numbers_them():
    assert order(("LABEL_1", "LABEL_0"), ("pos", "neg"), ("neg", "pos")) == ["LABEL_1", "LABEL_0"]
    with pytest.raises(InputError, match="its head has the classes LABEL_1, LABEL_0, but the task has pos, neg; leave out weights.head"):
        order(("LABEL_1", "LABEL_0"), ("pos", "neg"))


@pytest.mark.parametrize(
    "head_names, labels",
    [
        (("pos", "neg"), ("good", "bad")),
        (("pos", "neg"), ("neg", "pos", "neutral")),
        (("LABEL_0", "LABEL_1"), ("1", "2")),  # numbers from 1 do not match numbers from 0
        (("LABEL_0", "LABEL_1"), ("neg", "pos")),
        (("pos", "pos"), ("neg", "pos")),
        (("0", "LABEL_0"), ("0", "00")),
    ],
)
def test_names_that_cannot_be_paired_one_to_one_are_refused(head_names, labels):
    with pytest.raises(InputError, match="^folder: its head has the classes .*; leave out weights.head to begin with a new one"):
        order(head_names, labels)


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
def test_class_names_are_those_that_transformers_reads(tmp_path, config, wanted):
    from transformers import BertConfig

    assert classes.names(config, 3, "folder") == wanted
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", "num_labels": 3} | config))
    id2label = BertConfig.from_pretrained(tmp_path).id2label
    assert tuple(str(id2label[number]) for number in range(3)) == wanted


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
def test_class_names_that_do_not_fit_the_head_are_refused(config, complaint):
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


def test_kernel_and_bias_are_reordered_and_other_layers_are_not():
    kernel, bias, dense = np.arange(6.0).reshape(2, 3), np.arange(3.0), np.arange(4.0).reshape(2, 2)
    tensors = {"head/classifier/kernel": kernel, "head/classifier/bias": bias, "head/dense/kernel": dense}
    ordered = classes.in_order(tensors, {"id2label": {"0": "b", "1": "c", "2": "a"}}, ("a", "b", "c"), (), "folder")
    assert np.array_equal(ordered["head/classifier/kernel"], kernel[:, [2, 0, 1]])
    assert np.array_equal(ordered["head/classifier/bias"], bias[[2, 0, 1]]) and ordered["head/dense/kernel"] is dense
