"""Test properties of all families: packed examples do not affect each other, and computation can start at any stage."""

import functools

import jax
import numpy as np
import pytest

from research.layers.precision import Precision
from research.params.tree import flatten
from research.weights import padded_batch
from tests.weights import families

LENGTHS = (11, 7, 5)  # longer than ModernBERT's window of 4 to each side and DeBERTa's 4 exact distances
ENDS = np.cumsum(LENGTHS)
TOKENS = np.random.RandomState(0).randint(3, 120, sum(LENGTHS))
every_family = pytest.mark.parametrize("name", families.CONFIGS)


def types(name, positions):
    """Return token types that change after an example's third token, or zeros if the family has no second type."""
    return (positions > 2) * (families.CONFIGS[name].get("type_vocab_size") == 2)


def padded(name, tokens=TOKENS):
    """Return a batch of the three examples, one a row."""
    ids, mask = (np.zeros((3, max(LENGTHS)), np.int32) for _ in range(2))
    for i, example in enumerate(np.split(tokens, ENDS[:-1])):
        ids[i, : len(example)], mask[i, : len(example)] = example, 1
    return padded_batch(ids, mask, mask * types(name, np.arange(max(LENGTHS))))


def packed(name, tokens=TOKENS, padding=1):
    """Return a batch with the same examples in one row, followed by `padding` padding tokens."""
    row = lambda parts: np.pad(np.concatenate(list(parts)), (0, padding)).astype(np.int32)[None]  # noqa: E731
    return {
        "tokens": row([tokens]),
        "positions": row(np.arange(n) for n in LENGTHS),
        "segments": row(np.full(n, i + 1) for i, n in enumerate(LENGTHS)),
        "types": row(types(name, np.arange(n)) for n in LENGTHS),
        "example_starts": np.array([[0, *ENDS[:-1]]], np.int32),
        "examples": np.arange(3, dtype=np.int32)[None],
    }


def with_dropout(encoder):
    """Return the encoder with dropout rates of 0.1. ALBERT and ModernBERT are published with rates of 0."""
    return encoder.clone(dropout=0.1, attention_dropout=0.1)


@functools.cache
def unchanged(name: str, layout=packed) -> list[list[np.ndarray]]:
    """Return `by_example` for the three unchanged examples."""
    return by_example(name, layout(name))


def by_example(name, batch, key=None) -> list[list[np.ndarray]]:
    """Return for each example the states [tokens, D] of all stages, then the logits [C].

    It is not jitted, because the families share the compiled single operations.
    """
    model, params = families.load(name)
    rngs = None if key is None else {"dropout": jax.random.key(key)}
    encoded = with_dropout(model.encoder).apply({"params": params["encoder"]}, batch, rngs=rngs)
    logits = np.asarray(model.head.apply({"params": params["head"]}, encoded, batch)).reshape(3, -1)
    tokens = [np.split(np.asarray(states)[batch["segments"] > 0], ENDS[:-1]) for states in encoded.stages]
    return [[*states, logits[i]] for i, states in enumerate(zip(*tokens, strict=True))]


@every_family
def test_packed_examples_have_the_states_and_logits_of_padded_examples(name):
    one, other = unchanged(name, padded), unchanged(name)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5, rtol=0)
    assert np.abs(one[0][-1] - one[1][-1]).max() > 0.01, "logits that hardly vary would make the comparison weak"


@every_family
def test_dropout_does_not_depend_on_packing(name):
    one, other = by_example(name, padded(name), key=1), by_example(name, packed(name), key=1)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[-2], b[-2], atol=1e-5, rtol=0)
    assert np.abs(one[0][-2] - by_example(name, padded(name), key=2)[0][-2]).max() > 0.1


@every_family
@pytest.mark.parametrize("changed", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)])
def test_changing_an_example_changes_no_bit_of_the_others_in_its_row(name, changed):
    other = TOKENS.copy()
    inside = slice(ENDS[changed] - LENGTHS[changed], ENDS[changed])
    other[inside] = (other[inside] + 1) % 117 + 3
    before, after = unchanged(name), by_example(name, packed(name, other))
    for i in range(3):
        same = [np.array_equal(a, b) for a, b in zip(before[i], after[i], strict=True)]
        assert not any(same) if i == changed else all(same)


@every_family
def test_examples_with_one_segment_number_affect_each_other(name):
    other = TOKENS.copy()
    other[:11] = (other[:11] + 1) % 117 + 3
    one = {"segments": (packed(name)["segments"] > 0).astype(np.int32)}
    before, after = (by_example(name, packed(name, tokens) | one) for tokens in (TOKENS, other))
    assert np.abs(before[1][-2] - after[1][-2]).max() > 0.01, "the second example's last states"


@every_family
def test_starting_at_a_later_stage_gives_the_same_bits(name):
    model, params = families.load(name)
    encoder, batch = model.encoder, packed(name)

    def apply(**options):
        return encoder.apply({"params": params["encoder"]}, batch, **options)

    out = apply()
    assert len(out.stages) == len(encoder.stages) and np.array_equal(out.stages[-1], out.last)
    for start in range(1, len(encoder.stages) + 1):
        below = apply(stop=start)
        assert np.array_equal(below.last, out.stages[start - 1]) and len(below.stages) == start and below.pooled is None
        above = apply(start=start, hidden=below.last)
        assert np.array_equal(above.last, out.last) and len(above.stages) == len(encoder.stages) + 1 - start
        assert (above.pooled is None) == (out.pooled is None)
        assert out.pooled is None or np.array_equal(above.pooled, out.pooled)
        moved = apply(start=start, hidden=below.last + 0.1 * below.last[:, ::-1])
        assert not np.array_equal(moved.last, out.last)


@every_family
def test_starting_at_a_later_stage_with_dropout_gives_the_same_bits(name):
    model, params = families.load(name)
    encoder, key = with_dropout(model.encoder), {"dropout": jax.random.key(3)}
    out = encoder.apply({"params": params["encoder"]}, packed(name), rngs=key)
    for start in (1, len(encoder.stages) - 1):
        resumed = encoder.apply({"params": params["encoder"]}, packed(name), start=start, hidden=out.stages[start - 1], rngs=key)
        assert np.array_equal(resumed.last, out.last)
    other = encoder.apply({"params": params["encoder"]}, packed(name), rngs={"dropout": jax.random.key(4)})
    assert not np.array_equal(other.last, out.last)


@every_family
def test_gradients_in_bfloat16_are_near_those_in_float32(name):
    # This also checks that the gradients exist: a CPU does not have every product in bfloat16 that a backward pass may need.
    model, params = families.load(name)
    weight = np.random.RandomState(0).normal(size=(3, 11, 24)).astype(np.float32)

    def gradient(encoder, batch):
        loss = lambda p: (encoder.apply({"params": p}, batch).last * weight).sum()  # noqa: E731
        return flatten(jax.grad(loss)(params["encoder"]))

    full, rounded = (gradient(model.encoder.clone(precision=Precision(which)), padded(name)) for which in ("float32", "bfloat16"))
    other = gradient(model.encoder, padded(name, (TOKENS + 1) % 117 + 3))
    distance = lambda grad: np.sqrt(sum(np.sum((grad[n] - full[n]) ** 2) for n in full) / sum(np.sum(full[n] ** 2) for n in full))  # noqa: E731
    assert 1e-4 < distance(rounded) < 0.1 < distance(other)
