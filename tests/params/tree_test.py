"""Test operations on parameter trees: flatten, split, merge, count and digest."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.params import tree

WORDS = st.sampled_from(["kernel", "bias", "scale", "layer_1", "layer_11", "norm"])
LEAVES = st.lists(st.integers(-9, 9), min_size=1, max_size=3).map(lambda x: np.array(x, np.float32))
TREES = st.recursive(LEAVES, lambda inner: st.dictionaries(WORDS, inner, min_size=1, max_size=3)).filter(lambda x: isinstance(x, dict))


def params():
    return {
        "head": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)},
        "encoder": {"layer_0": {"kernel": np.arange(4, dtype=np.float32)}},
    }


def same(a, b):
    """Return whether two nested dicts have the same structure and the same array objects, without the module under test."""
    if isinstance(a, dict) or isinstance(b, dict):
        return isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a is b


def test_flatten_gives_sorted_slash_paths():
    flat = tree.flatten(params())
    assert list(flat) == ["encoder/layer_0/kernel", "head/bias", "head/kernel"]
    assert flat["head/kernel"].shape == (2, 3)


@given(TREES)
def test_unflatten_undoes_flatten(params):
    assert same(tree.unflatten(tree.flatten(params)), params)


@given(TREES, st.data())
def test_merge_undoes_split_for_any_names(params, data):
    names = list(tree.flatten(params))
    chosen = data.draw(st.sets(st.sampled_from(names)))
    selected, others = tree.split(params, chosen)
    assert set(tree.flatten(selected)) == chosen
    assert set(tree.flatten(others)) == set(names) - chosen
    assert same(tree.merge(selected, others), params)
    assert same(tree.merge(others, selected), params)
    assert not chosen or not same(others, params)


def test_leaves_below_a_subtree_are_selected_by_full_components():
    flat = tree.flatten(params() | {"header": {"bias": np.ones(1)}})
    assert list(tree.below(flat, "head")) == ["bias", "kernel"] and list(tree.below(flat, "encoder/layer_0")) == ["kernel"]
    assert tree.below(flat, "head")["bias"] is flat["head/bias"] and tree.below(flat, "hea") == {}
    assert [name for name in flat if tree.is_below(name, ("head", "encoder/layer"))] == ["head/bias", "head/kernel"]
    assert tree.is_below("head", ["head"]) and not tree.is_below("head/bias", ())


def test_split_refuses_a_name_that_is_not_a_leaf():
    for name in ("head/kernal", "head", "encoder/layer_0"):
        with pytest.raises(KeyError, match=name):
            tree.split(params(), ["head/bias", name])


def test_merge_refuses_trees_with_a_common_leaf():
    with pytest.raises(ValueError, match="head/bias"):
        tree.merge(params(), {"head": {"bias": np.zeros(3, np.float32)}})


def test_map_named_passes_full_names_and_keeps_the_structure():
    actual = tree.map_named(lambda name, leaf: (name, leaf.shape), params())
    assert actual == {
        "head": {"kernel": ("head/kernel", (2, 3)), "bias": ("head/bias", (3,))},
        "encoder": {"layer_0": {"kernel": ("encoder/layer_0/kernel", (4,))}},
    }


def test_count_includes_leaves_without_dimensions_and_empty_leaves():
    assert tree.count(params()) == 2 * 3 + 3 + 4
    assert tree.count({"a": np.float32(1.0), "b": np.zeros((0, 5))}) == 1


def test_digest_does_not_depend_on_insertion_order_or_on_the_device():
    reordered = {"encoder": params()["encoder"], "head": dict(reversed(params()["head"].items()))}
    on_device = {"head": {k: jnp.asarray(v) for k, v in params()["head"].items()}, "encoder": params()["encoder"]}
    assert list(reordered) != list(params())
    assert tree.digest(reordered) == tree.digest(params()) == tree.digest(on_device)


def test_digest_of_a_transposed_view_depends_on_its_values_only():
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert tree.digest({"a": rows.T}) == tree.digest({"a": np.array(rows.T.tolist(), np.float32)}) != tree.digest({"a": rows.reshape(3, 2)})


@pytest.mark.parametrize(
    "changed",
    [
        {"a": np.array([1, 3], np.float32)},
        {"b": np.array([1, 2], np.float32)},
        {"a": np.array([1, 2], np.int32)},
        {"a": np.array([1, 2], np.float64)},
        {"a": jnp.array([1, 2], jnp.bfloat16)},
        {"a": np.array([[1, 2]], np.float32)},
        {"x": {"a": np.array([1, 2], np.float32)}},
        {"a": np.array([1, 2], np.float32), "b": np.zeros(0, np.float32)},
    ],
    ids=["value", "name", "integers", "double", "bfloat16", "shape", "depth", "empty leaf"],
)
def test_digest_changes_with(changed):
    assert tree.digest(changed) != tree.digest({"a": np.array([1, 2], np.float32)})


def test_digest_differs_for_a_scalar_and_an_array_of_one():
    assert tree.digest({"a": np.float32(1)}) != tree.digest({"a": np.ones(1, np.float32)})
