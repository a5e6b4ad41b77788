"""Prefixes and soft prompts: the model's outputs against the papers' equations in NumPy."""

import jax
import numpy as np
import pytest

from research.data import pipeline
from research.data.examples import Examples
from research.errors import InputError
from research.layers.precision import Precision
from research.params.tree import flatten
from tests import runs
from tests.adapt import small

CORE = "layer_1/attention/core"


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_attention_reads_the_prefix_and_the_text(layout):
    model = small.model("prefix", prefix__tokens=3)
    trainable = small.moved(model, by=1.0)
    (q, k, v, mask, *_), out = small.at(model, trainable, small.batch_of(model, layout), CORE)
    delta_params, _ = small.parts(model, trainable, "prefix")

    def attention(keys, values):
        expected = np.zeros_like(out)
        for i in range(len(q)):
            row, head = divmod(i, 4)
            columns = slice(8 * head, 8 * head + 8)
            all_keys, all_values = np.concatenate([keys[:, columns], k[i]]), np.concatenate([values[:, columns], v[i]])
            for place in range(q.shape[1]):
                seen = np.concatenate([np.ones(len(keys), bool), mask[row, 0, place]])
                weights = np.exp(all_keys[seen] @ q[i, place] / 8**0.5)
                expected[i, place] = weights @ all_values[seen] / weights.sum()
        return expected

    keys, values = delta_params[f"{CORE}/keys"], delta_params[f"{CORE}/values"]
    assert keys.shape == values.shape == (3, 32)
    np.testing.assert_allclose(out, attention(keys, values), atol=1e-5, rtol=0)
    assert small.far(out, attention(keys[:2], values[:2])) and small.far(out, attention(keys[:0], values[:0]))
    assert small.far(out, attention(1.5 * keys, values), 1e-4) and small.far(out, attention(keys, 1.5 * values))


def test_the_prefix_has_separate_columns_for_dropout():
    model = small.model("prefix", prefix__tokens=3)
    delta_params, encoder = small.parts(model, model.trainable, "prefix")
    interceptor = model.recipe.deltas[0].interceptors(delta_params, encoder, {}, None, Precision())[CORE]
    qkv, mask = np.zeros((2 * 4, 5, 8), np.float32), np.zeros((2, 1, 5, 5), bool)
    rows, columns = np.zeros((2, 4, 5, 1), np.uint32), np.tile(np.arange(5, dtype=np.uint32), (2, 1, 1, 1))
    _, k, v, mask, _, columns = interceptor(lambda *arguments: arguments, qkv, qkv, qkv, mask, rows, columns)
    assert k.shape == v.shape == (8, 8, 8) and mask.shape == (2, 1, 5, 8) and columns.shape == (2, 1, 1, 8)
    assert mask[..., :3].all() and not mask[..., 3:].any()
    assert all(len(np.unique(row)) == 8 and row[3:].tolist() == [0, 1, 2, 3, 4] for row in np.asarray(columns)[:, 0, 0])


def test_a_prefix_begins_small_and_different_in_every_layer():
    model = small.model("prefix")
    delta_params, _ = small.parts(model, model.trainable, "prefix")
    assert delta_params.keys() == {f"layer_{i}/attention/core/{part}" for i in range(2) for part in ("keys", "values")}
    leaves = np.stack(list(delta_params.values()))
    assert leaves.shape == (4, 20, 32) and 0.018 < leaves.std() < 0.022 and len(np.unique(leaves[:, 0, 0])) == 4
    wide = small.model("prefix", prefix__std=1.0)
    assert 0.9 < np.std(small.parts(wide, wide.trainable, "prefix")[0][f"{CORE}/keys"]) < 1.1


def test_the_prefix_attends_for_every_segment_and_changes_every_example():
    model = small.model("prefix", prefix__tokens=1)
    batch, trainable = small.batch_of(model), small.moved(model)
    assert np.abs(small.logits(model, trainable, batch) - small.logits(model, model.trainable, batch)).max(axis=1).min() > 1e-5


def test_a_soft_prompt_begins_as_words_and_gives_the_logits_of_these_words():
    model, frozen = small.model("soft_prompt", soft_prompt__tokens=4), small.model("linear_probe")
    delta_params, encoder = small.parts(model, model.trainable, "soft_prompt")
    assert delta_params.keys() == {"embeddings/word/prompt"}
    table = encoder["embeddings/word/embedding"]
    words = [int(np.flatnonzero((table == row).all(1))[0]) for row in delta_params["embeddings/word/prompt"]]
    assert len(set(words)) == 4
    for layout in ("packed", "padded"):
        batch = small.batch_of(model, layout)
        initial = small.logits(model, model.trainable, batch)
        for read, same in ((words, True), (words[::-1], False)):
            tokens = batch["tokens"].copy()
            for i, word in enumerate(read):
                tokens[(batch["positions"] == i + 1) & (batch["segments"] > 0)] = word
            with_words = small.logits(frozen, frozen.trainable, batch | {"tokens": tokens})
            assert small.far(initial, with_words, 1e-6) != same


def test_a_soft_prompt_stands_only_after_the_first_token_of_every_example():
    model = small.model("soft_prompt", soft_prompt__tokens=4)
    trainable, (delta,) = small.moved(model), model.recipe.deltas
    delta_params, encoder = small.parts(model, trainable, "soft_prompt")
    batch = small.batch_of(model)
    (tokens,), out = small.at(model, trainable, batch, "embeddings/word")
    expected = encoder["embeddings/word/embedding"][tokens]
    for row in range(len(tokens)):
        for place in np.flatnonzero(np.diff(batch["segments"][row], prepend=0) > 0):
            expected[row, place + 1 : place + 5] = delta_params["embeddings/word/prompt"]
    assert delta.extra_tokens == 4 and np.array_equal(out, expected)
    assert (batch["tokens"][batch["positions"] == 0] == 2)[batch["segments"][batch["positions"] == 0] > 0].all()  # [CLS] is still first


def test_the_token_ids_below_a_soft_prompt_do_not_matter_and_the_text_does():
    model = small.model("soft_prompt", soft_prompt__tokens=4)
    trainable, batch = small.moved(model), small.batch_of(model)
    before = small.logits(model, trainable, batch)
    in_prompt = (batch["positions"] >= 1) & (batch["positions"] <= 4) & (batch["segments"] > 0)
    assert in_prompt.sum() == 4 * 12
    assert np.array_equal(small.logits(model, trainable, batch | {"tokens": np.where(in_prompt, 7, batch["tokens"])}), before)
    after_prompt = (batch["positions"] == 5) & (batch["segments"] > 0)
    assert not np.array_equal(small.logits(model, trainable, batch | {"tokens": np.where(after_prompt, 7, batch["tokens"])}), before)


@pytest.mark.slow
def test_every_vector_of_a_soft_prompt_has_a_gradient():
    model = small.model("soft_prompt", soft_prompt__tokens=4)
    grads, _ = model.gradient(model.trainable, model.frozen, small.batch_of(model), jax.random.key(0))
    grad = np.asarray(flatten(grads)["delta/soft_prompt/embeddings/word/prompt"])
    assert (np.abs(grad).max(axis=1) > 0).all()


def test_a_soft_prompt_makes_every_text_longer():
    model = small.model("soft_prompt", soft_prompt__tokens=96)
    assert pipeline.tokens(model, Examples(("0", "1"), (("a",), ("a b c",)), ())).lengths.tolist() == [3 + 96, 5 + 96]


def test_the_positions_of_a_text_begin_after_the_prefix():
    model = small.model("prefix", prefix__tokens=3)
    batch = small.batch_of(model)
    is_token = batch["segments"] > 0
    assert batch["positions"][is_token].min() == 3
    assert small.batch_of(small.model("linear_probe"))["positions"][is_token].min() == 0
    logits = small.logits(model, model.trainable, batch)
    from_zero = small.logits(model, model.trainable, batch | {"positions": batch["positions"] - 3 * is_token.astype(np.int32)})
    assert small.far(logits, from_zero, least=1e-4)


def test_a_prefix_reduces_the_largest_max_length():
    with pytest.raises(InputError, match="over the model's 128 positions less 20 that method=prefix takes; use --config.max_length=108"):
        runs.build_model(runs.config(method="prefix", max_length=120), ("a", "b"))
    runs.build_model(runs.config(method="prefix", max_length=108), ("a", "b"))


def test_a_soft_prompt_stands_after_the_first_token_wherever_the_text_begins():
    model = small.model("soft_prompt+prefix", prefix__tokens=3, soft_prompt__tokens=2)
    batch = small.batch_of(model)
    assert batch["positions"][batch["segments"] > 0].min() == 3
    moved = small.noisy(model.trainable, 0.3, under="delta/soft_prompt")
    assert small.far(small.logits(model, moved, batch), small.logits(model, model.trainable, batch))
    (_,), out = small.at(model, moved, batch, "embeddings/word")
    delta_params, _ = small.parts(model, moved, "soft_prompt")
    at = batch["example_starts"][0, 0] + 1
    np.testing.assert_array_equal(out[0, at : at + 2], delta_params["embeddings/word/prompt"])
    assert small.far(out[0, at - 1], delta_params["embeddings/word/prompt"][0])
