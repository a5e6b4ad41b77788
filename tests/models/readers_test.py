"""Compare the features of readers with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.layers.lstm import BiLstm
from research.models import readers
from research.models.output import EncoderOutput

B, L, D, TOTAL = 2, 9, 4, 6
RANDOM = np.random.RandomState(0)
STATES = tuple(RANDOM.normal(size=(B, L, D)).astype(np.float32) for _ in range(TOTAL))
BATCH = {
    "tokens": RANDOM.randint(0, 20, (B, L)).astype(np.int32),
    "segments": np.array([[1, 1, 1, 2, 2, 2, 2, 0, 0], [1, 1, 2, 2, 2, 3, 3, 3, 0]], np.int32),
}


def read(reader, params=None):
    """Return a reader's parameters and its features for the stages that it reads. `last` is NaN, as readers must not use it."""
    encoded = EncoderOutput(jnp.full((B, L, D), jnp.nan), tuple(STATES[i] for i in reader.stages(TOTAL)))
    if params is None:
        params = reader.init(jax.random.key(0), encoded, BATCH).get("params", {})
    return params, np.asarray(reader.apply({"params": params}, encoded, BATCH))


@pytest.mark.parametrize("stage", range(TOTAL))
def test_one_stage_returns_the_stage(stage):
    params, actual = read(readers.OneStage(stage))
    assert params == {} and np.array_equal(actual, STATES[stage])


@pytest.mark.parametrize(("count", "expected"), [(1, (5,)), (4, (2, 3, 4, 5)), (5, (1, 2, 3, 4, 5)), (9, (1, 2, 3, 4, 5))])
def test_the_last_layers_are_concatenated_without_the_embeddings(count, expected):
    reader = readers.LastJoined(count)
    params, actual = read(reader)
    assert params == {} and reader.stages(TOTAL) == expected
    assert np.array_equal(actual, np.concatenate([STATES[i] for i in expected], axis=-1))


def test_a_scalar_mix_starts_as_the_mean_of_all_stages():
    params, actual = read(readers.ScalarMix())
    assert {name: leaf.shape for name, leaf in params.items()} == {"s": (TOTAL,), "gamma": ()}
    np.testing.assert_allclose(actual, np.mean(STATES, axis=0), atol=1e-6)


def test_a_scalar_mix_is_equation_1_of_elmo():
    s, gamma = np.linspace(-1, 2, TOTAL).astype(np.float32), np.float32(1.7)
    _, actual = read(readers.ScalarMix(), {"s": s, "gamma": gamma})
    weights = np.exp(s) / np.exp(s).sum()
    np.testing.assert_allclose(actual, gamma * np.tensordot(weights, np.stack(STATES), 1), atol=1e-5)
    assert np.abs(actual - gamma * np.tensordot(s, np.stack(STATES), 1)).max() > 0.1
    assert np.abs(actual - gamma * np.tensordot(weights[::-1], np.stack(STATES), 1)).max() > 0.1
    _, shifted = read(readers.ScalarMix(), {"s": s + 3, "gamma": gamma})
    np.testing.assert_allclose(shifted, actual, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_lstms_are_stacked_on_the_last_hidden_states(layers):
    reader = readers.LstmOver(3, layers)
    params, actual = read(reader)
    assert set(params) == {f"lstm_{i}" for i in range(layers)} and actual.shape == (B, L, 6)
    x = STATES[-1]
    for i in range(layers):
        x = BiLstm(3).apply({"params": params[f"lstm_{i}"]}, x, BATCH["segments"])
    np.testing.assert_allclose(actual, x, atol=1e-6)
    assert np.all(actual[BATCH["segments"] == 0] == 0.0)


def test_an_lstm_encoder_is_concatenated_with_the_last_hidden_states():
    reader = readers.LstmBeside(embedding=5, size=3).for_vocabulary(20)
    params, actual = read(reader)
    assert params["word"]["embedding"].shape == (20, 5) and actual.shape == (B, L, D + 6)
    assert np.array_equal(actual[..., :D], STATES[-1])
    words = np.asarray(params["word"]["embedding"])[BATCH["tokens"]]
    np.testing.assert_allclose(actual[..., D:], BiLstm(3).apply({"params": params["lstm"]}, words, BATCH["segments"]), atol=1e-6)


def test_a_reader_without_word_embeddings_accepts_any_vocabulary():
    reader = readers.ScalarMix()
    assert reader.for_vocabulary(7) is reader
