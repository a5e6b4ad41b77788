"""Test the grammar that selects parameters, mostly on names that almost match."""

import pytest

from research.errors import InputError
from research.params import rules

NAMES = (
    "encoder/embeddings/word/embedding",
    "encoder/layer_1/attention/query/kernel",
    "encoder/layer_11/attention/query/kernel",
    "head/classifier/bias",
)


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        # A word is a whole component.
        ("layer_1", "encoder/layer_1/mlp/up/kernel", True),
        ("layer_1", "encoder/layer_11/mlp/up/kernel", False),
        ("layer_11", "encoder/layer_1/mlp/up/kernel", False),
        ("bias", "head/classifier/bias", True),
        ("bias", "head/bias_correction/kernel", False),
        ("bias", "head/unbias", False),
        ("lora", "encoder/notlora/kernel", False),
        ("Bias", "head/classifier/bias", False),
        ("head", "head/classifier/bias", True),
        ("head", "heads/imdb/bias", False),
        ("layer-norm", "encoder/layer-norm/scale", True),
        # Several words are consecutive components, wherever they stand.
        ("attention/query", "encoder/layer_0/attention/query/kernel", True),
        ("attention/query", "encoder/layer_0/attention/inner/query/kernel", False),
        ("attention/query", "encoder/layer_0/query/attention/kernel", False),
        ("attention/query", "encoder/attention/layer_0/query", False),
        ("attention/quer", "encoder/layer_0/attention/query/kernel", False),
        ("head/classifier/bias", "head/classifier/bias", True),
        ("head/classifier/bias/x", "head/classifier/bias", False),
        # Anything else is a regular expression over the full name.
        (".*/bias", "head/classifier/bias", True),
        ("head/.*", "head/classifier/bias", True),
        ("classifier/.*", "head/classifier/bias", False),
        ("head/.*ass", "head/classifier/bias", False),
        ("b.as", "head/classifier/bias", False),
        (r".*/layer_[0-5]/.*", "encoder/layer_4/mlp/up/kernel", True),
        (r".*/layer_[0-5]/.*", "encoder/layer_11/mlp/up/kernel", False),
        (".*/(norm|.*_norm)/scale", "encoder/layer_0/mlp/norm/scale", True),
        (".*/(norm|.*_norm)/scale", "encoder/ln/out_norm/scale", True),
        (".*/(norm|.*_norm)/scale", "encoder/renorm/scale", False),
    ],
)
def test_pattern_matches(pattern, name, expected):
    assert rules.matches(pattern, name) is expected


def test_the_first_rule_that_matches_decides():
    low, rest = ("encoder/layer_1", "low"), (".*", "rest")
    actual = rules.resolve({"low": low, "rest": rest}, NAMES)
    assert [value for _, value in actual.values()] == ["rest", "low", "rest", "rest"]
    assert [rule for rule, _ in actual.values()] == ["rest", "low", "rest", "rest"]
    reordered = rules.resolve({"rest": rest, "low": low}, NAMES)
    assert {value for _, value in reordered.values()} == {"rest"}


def test_resolve_keeps_the_order_of_the_names():
    assert list(rules.resolve({"all": (".*", 0)}, reversed(NAMES))) == list(reversed(NAMES))


def test_a_name_that_no_rule_covers_is_an_error_that_names_it_and_the_rules():
    with pytest.raises(InputError, match=r"'head/classifier/bias'; rules: body"):
        rules.resolve({"body": ("encoder", 1)}, NAMES)


@pytest.mark.parametrize(
    ("pattern", "hint"),
    [("layr_11", "layer_11"), ("attention/qury", "attention/query"), ("encodr", "encoder"), ("head/clasifier", "head/classifier")],
)
def test_a_rule_that_matches_nothing_is_an_error_that_names_the_nearest(pattern, hint):
    with pytest.raises(InputError) as error:
        rules.resolve({"typo": (pattern, 0), "all": (".*", 1)}, NAMES)
    message = str(error.value)
    assert "'typo'" in message and repr(pattern) in message and "\n" not in message
    assert message.endswith(f"did you mean {hint!r}?")


def test_a_rule_hidden_by_an_earlier_one_is_no_error():
    actual = rules.resolve({"all": (".*", 1), "hidden": ("head", 2)}, NAMES)
    assert {rule for rule, _ in actual.values()} == {"all"}


@pytest.mark.parametrize("pattern", ["layer_(1", "*/bias", "[a-"])
def test_an_invalid_regular_expression_is_an_error_of_one_line(pattern):
    with pytest.raises(InputError, match="is not a regular expression") as error:
        rules.resolve({"broken": (pattern, 0)}, NAMES)
    assert repr(pattern) in str(error.value) and "\n" not in str(error.value)
