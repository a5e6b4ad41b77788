"""Compare TextCNN with plain loops and PyTorch's convolution. Windows must end at the end of their example."""

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
    random = np.random.RandomState(1)  # with nonzero biases
    return encoder, jax.tree.map(lambda x: np.float32(random.normal(0, 0.4, x.shape)), params)


def states(batch, **changes):
    encoder, params = make(**changes)
    return np.asarray(encoder.apply({"params": params}, batch).last)


def by_loops(params, ids, windows=(2, 3, 5)):
    """Compute the states of one example with loops: [n, F * windows]."""
    x, columns = params["embeddings"]["word"]["embedding"][ids].astype(np.float64), []
    for w in windows:
        kernel, bias = (params["layer_0"][f"window_{w}"][name] for name in ("kernel", "bias"))
        kernel, z = kernel.reshape(w, x.shape[1], -1), np.tile(bias.astype(np.float64), (len(ids), 1))
        for t in range(len(ids)):
            for k in range(min(w, len(ids) - t)):
                z[t] += x[t + k] @ kernel[k]
        columns.append(np.maximum(z, 0))
    return np.concatenate(columns, axis=1)


def test_states_are_sums_over_windows_and_zero_in_padding():
    _, params = make()
    actual = states(words.packed())
    for ids, x in zip(words.examples(), words.by_example(actual, words.packed()), strict=True):
        np.testing.assert_allclose(x, by_loops(params, ids), atol=1e-5)
        assert np.abs(x - by_loops(params, ids[::-1])).max() > 0.05 or len(ids) == 1
    assert np.all(actual[words.packed()["segments"] == 0] == 0.0)


def test_packed_and_padded_rows_give_the_same_states():
    packed, padded = words.packed(), words.padded()
    from_packed, from_padded = words.by_example(states(packed), packed), words.by_example(states(padded), padded)
    for x, y in zip(from_packed, from_padded, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    leaking = states(packed | {"segments": np.minimum(packed["segments"], 1)})
    assert np.abs(leaking[0, :4] - from_packed[0]).max() > 0.05, "one segment for all examples mixes them"


def test_changing_an_example_changes_no_bit_of_the_others_in_its_row():
    ids = words.IDS.copy()
    ids[4] = 3 + (ids[4] - 2) % 17
    before, after = (words.by_example(states(words.packed(x), precision="bfloat16"), words.packed()) for x in (words.IDS, ids))
    assert np.array_equal(before[0], after[0]) and np.array_equal(before[2], after[2])
    assert not np.array_equal(before[1], after[1])


def test_it_can_start_and_stop_at_any_stage():
    encoder, params = make()
    batch, apply = words.packed(), lambda **options: encoder.apply({"params": params}, words.packed(), **options)
    full, first = apply(), apply(stop=1)
    assert len(full.stages) == len(encoder.stages) == 2 and len(first.stages) == 1
    assert first.last.shape == (1, 14, 6) and full.last.shape == (1, 14, 15) == (1, 14, encoder.config.hidden_size)
    assert np.array_equal(apply(start=1, hidden=first.last).last, full.last)
    assert np.array_equal(apply(start=2, hidden=full.last).last, full.last)
    assert pool(full, batch, "max").shape == (1, 3, 15)


def test_dropout_needs_a_key_and_does_not_depend_on_packing():
    encoder, params = make(dropout=0.5)
    run = lambda batch, **rngs: words.by_example(encoder.apply({"params": params}, batch, rngs=rngs).last, batch)  # noqa: E731
    packed, padded, without_dropout = (
        run(words.packed(), dropout=jax.random.key(1)),
        run(words.padded(), dropout=jax.random.key(1)),
        run(words.packed()),
    )
    for x, y, z in zip(packed, padded, without_dropout, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
        assert np.abs(x - z).max() > 0.01


@pytest.mark.torch
def test_it_matches_pytorchs_convolution():
    import torch

    _, params = make()
    for ids, actual in zip(words.examples(), words.by_example(states(words.packed()), words.packed()), strict=True):
        x = torch.tensor(params["embeddings"]["word"]["embedding"][ids].T)
        for i, w in enumerate((2, 3, 5)):
            kernel, bias = (params["layer_0"][f"window_{w}"][name] for name in ("kernel", "bias"))
            weight = torch.tensor(kernel.reshape(w, 6, 5).transpose(2, 1, 0).copy())
            y = torch.relu(torch.nn.functional.conv1d(torch.nn.functional.pad(x, (0, w - 1))[None], weight, torch.tensor(bias)))[0]
            np.testing.assert_allclose(actual[:, 5 * i : 5 * i + 5], y.numpy().T, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filters": 0}, "textcnn.filters=0"),
        ({"embedding": -1}, "textcnn.embedding=-1"),
        *(({"windows": windows}, "textcnn.windows=") for windows in ("", "3,x", "0", "3,3", "3;4")),
    ],
)
def test_an_invalid_shape_is_an_error_of_one_line(changes, message):
    with pytest.raises(InputError) as error:
        families.build(CONFIG | changes)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert families.build(CONFIG | {"windows": " 1, 4"}).config.windows == (1, 4)
