"""TextCNN beside plain loops and PyTorch's convolution; windows end where their example does."""

import jax
import numpy as np
import pytest

from research.errors import InputError
from research.models import families
from research.models.heads import pool
from tests.models import words

CONFIG = {"model_type": "textcnn", "vocab_size": 20, "embedding": 6, "filters": 5, "windows": "2,3,5"}


def make(precision="float32", dropout=0.0, **changes):
    encoder = families.build(CONFIG | changes, precision=precision, dropout=dropout)
    params = encoder.init(jax.random.key(0), words.packed())["params"]
    random = np.random.RandomState(1)  # biases too
    return encoder, jax.tree.map(lambda x: np.float32(random.normal(0, 0.4, x.shape)), params)


def states(batch, **changes):
    encoder, params = make(**changes)
    return np.asarray(encoder.apply({"params": params}, batch).last)


def by_loops(params, ids, windows=(2, 3, 5)):
    """[n, F * windows] of one example, by the sum over places."""
    x, columns = params["embeddings"]["word"]["embedding"][ids].astype(np.float64), []
    for w in windows:
        kernel, bias = (params["layer_0"][f"window_{w}"][name] for name in ("kernel", "bias"))
        kernel, z = kernel.reshape(w, x.shape[1], -1), np.tile(bias.astype(np.float64), (len(ids), 1))
        for t in range(len(ids)):
            for k in range(min(w, len(ids) - t)):
                z[t] += x[t + k] @ kernel[k]
        columns.append(np.maximum(z, 0))
    return np.concatenate(columns, axis=1)


def test_it_is_the_sum_over_each_window_and_zero_in_padding():
    _, params = make()
    got = states(words.packed())
    for ids, found in zip(words.examples(), words.by_example(got, words.packed()), strict=True):
        np.testing.assert_allclose(found, by_loops(params, ids), atol=1e-5)
        assert np.abs(found - by_loops(params, ids[::-1])).max() > 0.05 or len(ids) == 1
    assert np.all(got[words.packed()["segments"] == 0] == 0.0)


def test_packed_and_padded_rows_give_the_same_and_a_row_of_one_segment_does_not():
    packed, padded = words.packed(), words.padded()
    ours, theirs = words.by_example(states(packed), packed), words.by_example(states(padded), padded)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    leaking = states(packed | {"segments": np.minimum(packed["segments"], 1)})
    assert np.abs(leaking[0, :4] - ours[0]).max() > 0.05


def test_another_example_in_the_row_changes_not_a_bit_and_the_example_itself_does():
    ids = words.IDS.copy()
    ids[4] = 3 + (ids[4] - 2) % 17
    before, after = (words.by_example(states(words.packed(x), precision="bfloat16"), words.packed()) for x in (words.IDS, ids))
    assert np.array_equal(before[0], after[0]) and np.array_equal(before[2], after[2])
    assert not np.array_equal(before[1], after[1])


def test_it_can_begin_and_end_at_any_stage():
    encoder, params = make()
    batch, apply = words.packed(), lambda **options: encoder.apply({"params": params}, words.packed(), **options)
    whole, first = apply(), apply(stop=1)
    assert len(whole.stages) == len(encoder.stages) == 2 and len(first.stages) == 1
    assert first.last.shape == (1, 14, 6) and whole.last.shape == (1, 14, 15) == (1, 14, encoder.config.hidden_size)
    assert np.array_equal(apply(start=1, hidden=first.last).last, whole.last)
    assert np.array_equal(apply(start=2, hidden=whole.last).last, whole.last)
    assert pool(whole, batch, "max").shape == (1, 3, 15)


def test_dropout_is_there_with_a_key_alone_and_does_not_depend_on_the_layout():
    encoder, params = make(dropout=0.5)
    run = lambda batch, **rngs: words.by_example(encoder.apply({"params": params}, batch, rngs=rngs).last, batch)  # noqa: E731
    packed, padded, still = (
        run(words.packed(), dropout=jax.random.key(1)),
        run(words.padded(), dropout=jax.random.key(1)),
        run(words.packed()),
    )
    for one, other, plain in zip(packed, padded, still, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
        assert np.abs(one - plain).max() > 0.01


@pytest.mark.torch
def test_it_is_pytorchs_convolution():
    import torch

    _, params = make()
    for ids, found in zip(words.examples(), words.by_example(states(words.packed()), words.packed()), strict=True):
        x = torch.tensor(params["embeddings"]["word"]["embedding"][ids].T)
        for place, w in enumerate((2, 3, 5)):
            kernel, bias = (params["layer_0"][f"window_{w}"][name] for name in ("kernel", "bias"))
            weight = torch.tensor(kernel.reshape(w, 6, 5).transpose(2, 1, 0).copy())
            y = torch.relu(torch.nn.functional.conv1d(torch.nn.functional.pad(x, (0, w - 1))[None], weight, torch.tensor(bias)))[0]
            np.testing.assert_allclose(found[:, 5 * place : 5 * place + 5], y.numpy().T, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"filters": 0}, "textcnn.filters=0"),
        ({"embedding": -1}, "textcnn.embedding=-1"),
        *(({"windows": windows}, "textcnn.windows=") for windows in ("", "3,x", "0", "3,3", "3;4")),
    ],
)
def test_a_shape_that_makes_no_sense_is_one_line(changes, said):
    with pytest.raises(InputError) as error:
        families.build(CONFIG | changes)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert families.build(CONFIG | {"windows": " 1, 4"}).config.windows == (1, 4)
