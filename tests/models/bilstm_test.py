"""The BiLSTM encoder: layers on layers of `lstm.BiLstm`, beside PyTorch's, and as good in packed rows as alone."""

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


def test_it_can_begin_and_end_at_any_stage_dropout_included():
    encoder, params = make(dropout=0.5)
    apply = lambda **options: encoder.apply({"params": params}, words.packed(), rngs={"dropout": jax.random.key(1)}, **options)  # noqa: E731
    whole, first = apply(), apply(stop=1)
    assert encoder.stages == ("embeddings", "layer_0", "layer_1")
    assert [x.shape[-1] for x in whole.stages] == [6, 10, 10] and len(first.stages) == 1
    assert encoder.config.hidden_size == 10
    for start in (1, 2, 3):
        assert np.array_equal(apply(start=start, hidden=whole.stages[start - 1]).last, whole.last)


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
def test_it_is_pytorchs_lstm_of_as_many_layers():
    import torch

    _, params = make()
    lstm = torch.nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)
    with torch.no_grad():
        for layer in range(2):
            ours = params[f"layer_{layer}"]
            for direction, end in enumerate(("", "_reverse")):
                columns = slice(direction * 20, direction * 20 + 20)
                getattr(lstm, f"weight_ih_l{layer}{end}").copy_(torch.tensor(ours["input"]["kernel"][:, columns].T.copy()))
                getattr(lstm, f"weight_hh_l{layer}{end}").copy_(torch.tensor(ours["recurrent"][direction].T.copy()))
                getattr(lstm, f"bias_ih_l{layer}{end}").copy_(torch.tensor(ours["input"]["bias"][columns].copy()))
                getattr(lstm, f"bias_hh_l{layer}{end}").zero_()
        for ids, found in zip(words.examples(), words.by_example(states(words.packed()), words.packed()), strict=True):
            theirs = lstm(torch.tensor(params["embeddings"]["word"]["embedding"][ids])[None])[0][0]
            np.testing.assert_allclose(found, theirs.numpy(), atol=1e-5)


@pytest.mark.parametrize("changes", [{"layers": 0}, {"size": 0}, {"embedding": -3}])
def test_a_shape_that_makes_no_sense_is_one_line(changes):
    ((name, value),) = changes.items()
    with pytest.raises(InputError, match=f"bilstm.{name}={value} must be at least 1"):
        families.build(CONFIG | changes)
