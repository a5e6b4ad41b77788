"""Compare the BiLSTM encoder with PyTorch, and packed rows with single examples."""

import jax
import numpy as np
import pytest

from research.errors import InputError
from research.models import families
from tests.models import words

CONFIG = {"model_type": "bilstm", "vocab_size": 20, "embedding": 6, "size": 5, "layers": 2}


def make(precision="float32", dropout=0.0, **changes):
    encoder = families.build(CONFIG | changes, precision=precision, dropout=dropout)
    params = encoder.init(jax.random.key(0), words.packed())["params"]
    random = np.random.RandomState(1)
    return encoder, jax.tree.map(lambda x: np.float32(random.normal(0, 0.4, x.shape)), params)


def states(batch, **changes):
    encoder, params = make(**changes)
    return np.asarray(encoder.apply({"params": params}, batch).last)


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


def test_it_can_start_and_stop_at_any_stage_also_with_dropout():
    encoder, params = make(dropout=0.5)
    apply = lambda **options: encoder.apply({"params": params}, words.packed(), rngs={"dropout": jax.random.key(1)}, **options)  # noqa: E731
    full, first = apply(), apply(stop=1)
    assert encoder.stages == ("embeddings", "layer_0", "layer_1")
    assert [x.shape[-1] for x in full.stages] == [6, 10, 10] and len(first.stages) == 1
    assert encoder.config.hidden_size == 10
    for start in (1, 2, 3):
        assert np.array_equal(apply(start=start, hidden=full.stages[start - 1]).last, full.last)


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
def test_it_matches_pytorchs_lstm():
    import torch

    _, params = make()
    lstm = torch.nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for layer in range(2):
            flax_layer = params[f"layer_{layer}"]
            for direction, end in enumerate(("", "_reverse")):
                columns = slice(direction * 20, direction * 20 + 20)
                getattr(lstm, f"weight_ih_l{layer}{end}").copy_(torch.tensor(flax_layer["input"]["kernel"][:, columns].T.copy()))
                getattr(lstm, f"weight_hh_l{layer}{end}").copy_(torch.tensor(flax_layer["recurrent"][direction].T.copy()))
                getattr(lstm, f"bias_ih_l{layer}{end}").copy_(torch.tensor(flax_layer["input"]["bias"][columns].copy()))
                getattr(lstm, f"bias_hh_l{layer}{end}").zero_()
        for ids, actual in zip(words.examples(), words.by_example(states(words.packed()), words.packed()), strict=True):
            expected = lstm(torch.tensor(params["embeddings"]["word"]["embedding"][ids])[None])[0][0]
            np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("changes", [{"layers": 0}, {"size": 0}, {"embedding": -3}])
def test_an_invalid_shape_is_an_error_of_one_line(changes):
    ((name, value),) = changes.items()
    with pytest.raises(InputError, match=f"bilstm.{name}={value} must be at least 1"):
        families.build(CONFIG | changes)
