"""What every family keeps, whatever is special about it: examples in one row are as good as apart, and any stage can be begun at."""

import functools

import jax
import numpy as np
import pytest

from research.layers.precision import Precision
from research.params.tree import flatten
from research.weights import padded_batch
from tests.weights import families

LENGTHS = (11, 7, 5)  # over ModernBERT's window of 4 to each side, and over DeBERTa's 4 exact distances
ENDS = np.cumsum(LENGTHS)
TOKENS = np.random.RandomState(0).randint(3, 120, sum(LENGTHS))
every_family = pytest.mark.parametrize("name", families.CONFIGS)


def types(name, positions):
    """Types that change after an example's third token, where the family has two."""
    return (positions > 2) * (families.CONFIGS[name].get("type_vocab_size") == 2)


def padded(name, tokens=TOKENS):
    """The three examples, a row each."""
    ids, mask = (np.zeros((3, max(LENGTHS)), np.int32) for _ in range(2))
    for i, example in enumerate(np.split(tokens, ENDS[:-1])):
        ids[i, : len(example)], mask[i, : len(example)] = example, 1
    return padded_batch(ids, mask, mask * types(name, np.arange(max(LENGTHS))))


def packed(name, tokens=TOKENS, spare=1):
    """The same examples in one row, with `spare` places of padding."""
    row = lambda parts: np.pad(np.concatenate(list(parts)), (0, spare)).astype(np.int32)[None]  # noqa: E731
    return {
        "tokens": row([tokens]),
        "positions": row(np.arange(n) for n in LENGTHS),
        "segments": row(np.full(n, i + 1) for i, n in enumerate(LENGTHS)),
        "types": row(types(name, np.arange(n)) for n in LENGTHS),
        "example_starts": np.array([[0, *ENDS[:-1]]], np.int32),
        "examples": np.arange(3, dtype=np.int32)[None],
    }


def dropping(encoder):
    """The encoder with rates of dropout, which ALBERT and ModernBERT are published without. They do nothing without a key."""
    return encoder.clone(dropout=0.1, attention_dropout=0.1)


@functools.cache
def plain(name: str, layout=packed) -> list[list[np.ndarray]]:
    """`by_example` of the three examples as they are."""
    return by_example(name, layout(name))


def by_example(name, batch, key=None) -> list[list[np.ndarray]]:
    """For each example the states [tokens, D] of all stages, and its logits [C]. Not compiled: operations are shared by the families."""
    whole, params = families.load(name)
    rngs = None if key is None else {"dropout": jax.random.key(key)}
    encoded = dropping(whole.encoder).apply({"params": params["encoder"]}, batch, rngs=rngs)
    logits = np.asarray(whole.head.apply({"params": params["head"]}, encoded, batch)).reshape(3, -1)
    tokens = [np.split(np.asarray(states)[batch["segments"] > 0], ENDS[:-1]) for states in encoded.stages]
    return [[*states, logits[i]] for i, states in enumerate(zip(*tokens, strict=True))]


@every_family
def test_packed_examples_give_the_states_and_logits_of_padded_ones(name):
    one, other = plain(name, padded), plain(name)
    for a, b in zip(one, other, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, atol=1e-5, rtol=0)
    assert np.abs(one[0][-1] - one[1][-1]).max() > 0.01, "logits that hardly vary compare nothing"


@every_family
def test_dropout_falls_the_same_way_packed_or_padded(name):
    one, other = by_example(name, padded(name), key=1), by_example(name, packed(name), key=1)
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a[-2], b[-2], atol=1e-5, rtol=0)
    assert np.abs(one[0][-2] - by_example(name, padded(name), key=2)[0][-2]).max() > 0.1


@every_family
@pytest.mark.parametrize("changed", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow)])
def test_an_example_does_not_feel_its_neighbours_by_a_single_bit(name, changed):
    other = TOKENS.copy()
    inside = slice(ENDS[changed] - LENGTHS[changed], ENDS[changed])
    other[inside] = (other[inside] + 1) % 117 + 3
    before, after = plain(name), by_example(name, packed(name, other))
    for i in range(3):
        same = [np.array_equal(a, b) for a, b in zip(before[i], after[i], strict=True)]
        assert not any(same) if i == changed else all(same)


@every_family
def test_examples_of_one_segment_do_feel_each_other(name):
    other = TOKENS.copy()
    other[:11] = (other[:11] + 1) % 117 + 3
    one = {"segments": (packed(name)["segments"] > 0).astype(np.int32)}
    before, after = (by_example(name, packed(name, tokens) | one) for tokens in (TOKENS, other))
    assert np.abs(before[1][-2] - after[1][-2]).max() > 0.01, "the second example's last states"


@every_family
def test_starting_at_a_later_stage_ends_in_the_same_bits(name):
    whole, params = families.load(name)
    encoder, batch = whole.encoder, packed(name)

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
def test_with_dropout_too_a_later_start_ends_in_the_same_bits(name):
    whole, params = families.load(name)
    encoder, key = dropping(whole.encoder), {"dropout": jax.random.key(3)}
    out = encoder.apply({"params": params["encoder"]}, packed(name), rngs=key)
    for start in (1, len(encoder.stages) - 1):
        later = encoder.apply({"params": params["encoder"]}, packed(name), start=start, hidden=out.stages[start - 1], rngs=key)
        assert np.array_equal(later.last, out.last)
    other = encoder.apply({"params": params["encoder"]}, packed(name), rngs={"dropout": jax.random.key(4)})
    assert not np.array_equal(other.last, out.last)


@every_family
def test_gradients_in_bfloat16_stay_near_those_in_float32(name):
    # Also that there are any: of some products that the backward pass may ask for, a CPU has no bfloat16.
    whole, params = families.load(name)
    weight = np.random.RandomState(0).normal(size=(3, 11, 24)).astype(np.float32)

    def gradient(encoder, batch):
        loss = lambda p: (encoder.apply({"params": p}, batch).last * weight).sum()  # noqa: E731
        return flatten(jax.grad(loss)(params["encoder"]))

    full, low = (gradient(whole.encoder.clone(precision=Precision(which)), padded(name)) for which in ("float32", "bfloat16"))
    other = gradient(whole.encoder, padded(name, (TOKENS + 1) % 117 + 3))
    apart = lambda one: np.sqrt(sum(np.sum((one[n] - full[n]) ** 2) for n in full) / sum(np.sum(full[n] ** 2) for n in full))  # noqa: E731
    assert 1e-4 < apart(low) < 0.1 < apart(other)
