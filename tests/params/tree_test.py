"""Names, split, merge, digest."""

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
    """Equality of nested dicts of arrays, written without the module under test."""
    if isinstance(a, dict) or isinstance(b, dict):
        return isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a is b


def test_flatten_gives_sorted_slash_paths():
    flat = tree.flatten(params())
    assert list(flat) == ["encoder/layer_0/kernel", "head/bias", "head/kernel"]
    assert flat["head/kernel"].shape == (2, 3)


@given(TREES)
def test_unflatten_undoes_flatten(made):
    assert same(tree.unflatten(tree.flatten(made)), made)


@given(TREES, st.data())
def test_merge_undoes_split_whichever_names_are_chosen(made, data):
    names = list(tree.flatten(made))
    chosen = data.draw(st.sets(st.sampled_from(names)))
    one, other = tree.split(made, chosen)
    assert set(tree.flatten(one)) == chosen
    assert set(tree.flatten(other)) == set(names) - chosen
    assert same(tree.merge(one, other), made)
    assert same(tree.merge(other, one), made)
    assert not chosen or not same(other, made)


def test_split_refuses_a_name_that_is_not_there_even_if_it_is_a_folder():
    for name in ("head/kernal", "head", "encoder/layer_0"):
        with pytest.raises(KeyError, match=name):
            tree.split(params(), ["head/bias", name])


def test_merge_refuses_a_leaf_that_is_in_both():
    with pytest.raises(ValueError, match="head/bias"):
        tree.merge(params(), {"head": {"bias": np.zeros(3, np.float32)}})


def test_map_named_sees_full_names_and_keeps_the_shape_of_the_tree():
    got = tree.map_named(lambda name, leaf: (name, leaf.shape), params())
    assert got == {
        "head": {"kernel": ("head/kernel", (2, 3)), "bias": ("head/bias", (3,))},
        "encoder": {"layer_0": {"kernel": ("encoder/layer_0/kernel", (4,))}},
    }


def test_count_adds_up_scalars_also_of_a_leaf_without_dimensions():
    assert tree.count(params()) == 2 * 3 + 3 + 4
    assert tree.count({"a": np.float32(1.0), "b": np.zeros((0, 5))}) == 1


def test_digest_does_not_depend_on_insertion_order_or_on_where_the_arrays_live():
    turned = {"encoder": params()["encoder"], "head": dict(reversed(params()["head"].items()))}
    on_device = {"head": {k: jnp.asarray(v) for k, v in params()["head"].items()}, "encoder": params()["encoder"]}
    assert list(turned) != list(params())
    assert tree.digest(turned) == tree.digest(params()) == tree.digest(on_device)


def test_digest_reads_a_transposed_view_by_its_values():
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
    ids=["value", "name", "integers", "double", "bfloat16", "shape", "depth", "an empty leaf"],
)
def test_digest_changes_with(changed):
    assert tree.digest(changed) != tree.digest({"a": np.array([1, 2], np.float32)})


def test_digest_tells_a_scalar_from_an_array_of_one():
    assert tree.digest({"a": np.float32(1)}) != tree.digest({"a": np.ones(1, np.float32)})
