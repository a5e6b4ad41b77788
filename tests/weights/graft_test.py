import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import InputError
from research.weights.graft import graft


def params():
    return {"encoder": {"a": {"kernel": jnp.zeros((2, 3))}, "pooler": {"bias": jnp.zeros(3)}}, "head": {"bias": jnp.full(2, 7.0)}}


def tensors():
    return {"encoder/a/kernel": np.arange(6.0).reshape(2, 3), "encoder/pooler/bias": np.ones(3), "head/bias": np.ones(2)}


def without(tree, *names):
    return {name: value for name, value in tree.items() if name not in names}


def test_every_leaf_is_replaced_and_keeps_its_dtype():
    grafted = graft(params(), tensors())
    assert jax.tree.structure(grafted) == jax.tree.structure(params())
    assert np.array_equal(grafted["encoder"]["a"]["kernel"], tensors()["encoder/a/kernel"])
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(grafted))


def test_params_may_be_shapes():
    grafted = graft(jax.eval_shape(params), tensors())
    assert np.array_equal(grafted["head"]["bias"], np.ones(2))


def test_missing_left_over_and_misshapen_are_one_line():
    wrong = without(tensors(), "head/bias") | {"encoder/b": np.ones(1), "encoder/a/kernel": np.ones((3, 2))}
    with pytest.raises(InputError) as caught:
        graft(params(), wrong, source="FOLDER")
    assert str(caught.value) == (
        "FOLDER and model do not fit: 1 missing: head/bias; 1 left over: encoder/b; "
        "1 misshapen: encoder/a/kernel (file (3, 2), model (2, 3))"
    )


def test_a_long_list_is_shortened_and_counted():
    with pytest.raises(InputError, match=r"12 left over: x0, x1, x2, x3 and 8 more$"):
        graft(params(), tensors() | {f"x{i}": np.ones(1) for i in range(12)})


def test_a_leaf_that_may_be_missing_keeps_its_value():
    grafted = graft(params(), without(tensors(), "head/bias"), allow_missing=("head",))
    assert np.array_equal(grafted["head"]["bias"], np.full(2, 7.0))
    assert np.array_equal(grafted["encoder"]["pooler"]["bias"], np.ones(3))


def test_a_leaf_that_may_be_missing_is_replaced_where_there_is_a_tensor():
    assert np.array_equal(graft(params(), tensors(), allow_missing=("head",))["head"]["bias"], np.ones(2))


def test_a_tensor_that_may_be_left_over_is_dropped():
    model = params()
    del model["encoder"]["pooler"]
    grafted = graft(model, tensors(), allow_left_over=("encoder/pooler",))
    assert grafted["encoder"].keys() == {"a"}
    with pytest.raises(InputError, match="1 left over: encoder/pooler/bias"):
        graft(model, tensors(), allow_missing=("encoder/pooler",))


def test_allowed_subtrees_match_full_components_of_names():
    with pytest.raises(InputError, match="1 missing: head/bias"):
        graft(params(), without(tensors(), "head/bias"), allow_missing=("hea", "head/b", "encoder"))


def test_an_allowed_leaf_of_another_shape_is_still_an_error():
    with pytest.raises(InputError, match="1 misshapen: head/bias"):
        graft(params(), tensors() | {"head/bias": np.ones(5)}, allow_missing=("head",), allow_left_over=("head",))
