import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import InputError
from research.layers.activations import gelu
from research.models import families
from research.models.bert import BertConfig, rows_after_padding
from research.weights import padded_batch
from tests.weights import tiny

LENGTHS = (5, 7)
TOKENS = np.random.RandomState(0).randint(1, 50, (2, 7))


@pytest.fixture(scope="module")
def model():
    return families.build(tiny.CONFIG)


@pytest.fixture(scope="module")
def params(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), padded())["params"]
    random = np.random.RandomState(0)

    def leaf(path, shape):
        return jnp.asarray(random.normal(path[-1].key == "scale", 0.3, shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def apply(model, params, batch, key=None, start=0, hidden=None):
    rngs = None if key is None else {"dropout": jax.random.key(key)}
    return model.apply({"params": params}, batch, rngs=rngs, start=start, hidden=hidden)


def padded(length=7, tokens=TOKENS):
    """Return a batch of two examples of 5 and 7 tokens, one a row."""
    mask = (np.arange(length) < np.array(LENGTHS)[:, None]).astype(np.int32)
    ids = np.pad(tokens, ((0, 0), (0, length - 7))) * mask
    return padded_batch(ids, mask, mask * (np.arange(length) > 2))


def packed(tokens=TOKENS, padding=3):
    """Return a batch with the same two examples in one row, followed by `padding` padding tokens."""

    def row(*parts):
        return np.pad(np.concatenate(parts), (0, padding)).astype(np.int32)[None]

    ranges = [np.arange(n) for n in LENGTHS]
    return {
        "tokens": row(tokens[0, :5], tokens[1]),
        "positions": row(*ranges),
        "segments": row(np.full(5, 1), np.full(7, 2)),
        "types": row(*(r > 2 for r in ranges)),
        "example_starts": np.array([[0, 5]], np.int32),
        "labels": np.zeros((1, 2), np.int32),
        "weights": np.ones((1, 2), np.float32),
        "examples": np.array([[0, 1]], np.int32),
    }


def examples(x, batch):
    """Return the hidden states of the two examples' tokens, without padding: [12, D]."""
    return np.asarray(x)[np.asarray(batch["segments"]) > 0]


def other_second_example():
    tokens = TOKENS.copy()
    tokens[1] = tokens[1] % 49 + 1
    assert (tokens[1] != TOKENS[1]).all()
    return tokens


def test_the_stages_are_the_outputs_of_the_layers(model, params):
    out = apply(model, params, padded())
    assert len(out.stages) == len(model.stages) == 4
    assert np.array_equal(out.stages[-1], out.last)
    assert all(stage.shape == (2, 7, 32) and stage.dtype == jnp.float32 for stage in out.stages)


def test_the_pooler_is_a_tanh_layer_over_the_first_tokens(model, params):
    batch = packed()
    out = apply(model, params, batch)
    first = np.asarray(out.last)[0, [0, 5]]
    expected = np.tanh(first @ np.asarray(params["pooler"]["kernel"]) + np.asarray(params["pooler"]["bias"]))
    np.testing.assert_allclose(out.pooled[0], expected, atol=1e-6)
    assert apply(families.build(tiny.CONFIG, pooler=False), params, batch).pooled is None


def test_padding_does_not_change_the_states_of_tokens(model, params):
    short, long = padded(), padded(12)
    a, b = (examples(apply(model, params, batch).last, batch) for batch in (short, long))
    np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)
    unmasked = long | {"segments": np.ones_like(long["segments"])}
    assert np.abs(examples(apply(model, params, unmasked).last, long) - a).max() > 0.01


def test_packed_examples_have_the_states_of_padded_examples(model, params):
    a, b = (apply(model, params, batch) for batch in (padded(), packed()))
    for x, y in zip(a.stages, b.stages, strict=True):
        np.testing.assert_allclose(examples(x, padded()), examples(y, packed()), atol=1e-5, rtol=0)
    np.testing.assert_allclose(a.pooled[:, 0], b.pooled[0], atol=1e-5, rtol=0)


def test_changing_an_example_changes_no_bit_of_the_other_in_its_row(model, params):
    a, b = (np.asarray(apply(model, params, packed(tokens)).last)[0] for tokens in (TOKENS, other_second_example()))
    assert np.array_equal(a[:5], b[:5])
    assert np.abs(a[5:12] - b[5:12]).max() > 0.1


def test_examples_with_one_segment_number_affect_each_other(model, params):
    one = {"segments": (packed()["segments"] > 0).astype(np.int32)}
    a, b = (np.asarray(apply(model, params, packed(tokens) | one).last)[0] for tokens in (TOKENS, other_second_example()))
    assert np.abs(a[:5] - b[:5]).max() > 0.01


@pytest.mark.parametrize("start", [1, 2, 3])
@pytest.mark.parametrize("key", [None, 3])
def test_starting_at_a_later_stage_gives_the_same_bits(model, params, start, key):
    out = apply(model, params, packed(), key)
    resumed = apply(model, params, packed(), key, start=start, hidden=out.stages[start - 1])
    assert np.array_equal(resumed.last, out.last) and np.array_equal(resumed.pooled, out.pooled)
    assert len(resumed.stages) == 5 - start
    other = apply(model, params, packed(), key, start=start, hidden=out.stages[start - 1] + 0.1 * out.stages[start])
    assert not np.array_equal(other.last, out.last)


def test_the_encoder_is_deterministic_without_a_dropout_key(model, params):
    without_dropout = apply(model, params, padded()).last
    assert np.array_equal(without_dropout, apply(model, params, padded()).last)
    assert np.array_equal(apply(model, params, padded(), 1).last, apply(model, params, padded(), 1).last)
    assert np.abs(apply(model, params, padded(), 1).last - without_dropout).max() > 0.1
    assert np.abs(apply(model, params, padded(), 1).last - apply(model, params, padded(), 2).last).max() > 0.1


def test_dropout_does_not_depend_on_packing(model, params):
    a = examples(apply(model, params, padded(), 1).last, padded())
    for batch in (packed(), padded(12)):
        np.testing.assert_allclose(examples(apply(model, params, batch, 1).last, batch), a, atol=1e-5, rtol=0)
    renumbered = packed() | {"examples": np.array([[0, 2]], np.int32)}
    b = examples(apply(model, params, renumbered, 1).last, packed())
    np.testing.assert_allclose(b[:5], a[:5], atol=1e-5, rtol=0)
    assert np.abs(b[5:] - a[5:]).max() > 0.1, "the mask depends on the example's number"


def test_dropout_rates_default_to_the_config(params):
    without_dropout = families.build(tiny.CONFIG | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    assert np.array_equal(apply(without_dropout, params, padded(), 1).last, apply(without_dropout, params, padded()).last)
    for rates in ({"dropout": 0.1}, {"attention_dropout": 0.1}):
        with_dropout = families.build(tiny.CONFIG | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, **rates)
        assert not np.array_equal(apply(with_dropout, params, padded(), 1).last, apply(without_dropout, params, padded()).last)


def test_a_row_without_tokens_is_finite_and_has_finite_gradients(model, params):
    empty = jax.tree.map(np.zeros_like, padded())
    value, gradient = jax.jit(jax.value_and_grad(lambda p: jnp.sum(apply(model, p, empty).last ** 2)))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((value, gradient)))


def test_bfloat16_is_near_float32_and_has_float32_states(model, params):
    rounded = apply(families.build(tiny.CONFIG, precision="bfloat16"), params, padded())
    full = apply(model, params, padded())
    assert rounded.last.dtype == jnp.float32
    difference = np.abs(rounded.last - full.last)
    assert 1e-4 < difference.max() < 0.5 and difference.mean() < 0.03


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 1001, dtype=np.float32)
    np.testing.assert_allclose(gelu(x), jax.nn.gelu(x, approximate=False), atol=1e-6)
    assert np.abs(gelu(x) - jax.nn.gelu(x, approximate=True)).max() > 1e-4


@pytest.mark.parametrize(
    "change, message",
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"hidden_act": "rellu"}, "hidden_act 'rellu': did you mean 'relu'"),
        ({"model_type": "t5"}, "model_type 't5' is not supported; known: .*bert"),
        ({"model_type": None}, "model_type None is not supported"),
    ],
)
def test_an_unsupported_config_is_an_error(change, message):
    with pytest.raises(InputError, match=message):
        families.build(tiny.CONFIG | change)


def test_a_config_overrides_the_shape_of_the_published_base_model():
    other = BertConfig.from_hf({"hidden_size": 24, "unknown": 1})
    assert other == dataclasses.replace(BertConfig.from_hf({}), hidden_size=24, embedding_size=24)
    assert (BertConfig().hidden_size, BertConfig().num_hidden_layers, BertConfig().vocab_size) == (768, 12, 30522)


def test_a_padding_token_inside_a_text_is_not_counted_where_positions_begin_after_padding():
    # Two examples in a row, then padding. 1 is the padding id. transformers has cumsum(ids != 1) * (ids != 1) + 1 for each example.
    batch = {
        "tokens": np.array([[0, 7, 1, 8, 2, 0, 1, 1, 9, 0]]),
        "segments": np.array([[1, 1, 1, 1, 1, 2, 2, 2, 2, 0]]),
        "positions": np.array([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0]]),
    }
    rows = np.asarray(rows_after_padding(batch, 2))
    assert rows[0, :9].tolist() == [2, 3, 1, 4, 5, 2, 1, 1, 3]
    unpadded = batch | {"tokens": np.where(batch["tokens"] == 1, 7, batch["tokens"])}
    assert np.asarray(rows_after_padding(unpadded, 2))[0, :9].tolist() == [2, 3, 4, 5, 6, 2, 3, 4, 5]
