"""Packing several examples into a row gives the same loss and gradients, and no example affects another one in its row."""

import jax
import numpy as np
import pytest

from research.data import pipeline
from research.data.batches import Batches
from research.data.examples import Examples
from research.params.tree import flatten
from research.tasks.base import Column
from tests import runs


@pytest.fixture(scope="module", params=["pooler", "mean"])
def model(request):
    return runs.build_model(runs.config(precision="float32", pooling=request.param), ("a", "b"))


def batch_of(model, layout: str, change: bool = False):
    """Return one batch of 16 texts of 4 to 19 letters. With `change`, the sixth text has other letters."""
    texts = tuple(("abcdefghijklmnopqrs"[: 4 + i],) for i in range(16))
    tokens = pipeline.tokens(model, Examples(tuple(map(str, range(16))), texts, ()))
    if change:
        begin, end = tokens.offsets[5:7]
        tokens.ids[begin + 1 : end - 1] = np.arange(5, 5 + end - begin - 2)
    batches = Batches(tokens, {"labels": Column("example", np.arange(16, dtype=np.int32) % 2)}, 16, seed=0, layout=layout)
    return next(batches.epoch(0))


def logits_by_example(model, batch) -> np.ndarray:
    logits = np.asarray(jax.jit(model.logits)(model.trainable, model.frozen, batch))
    return logits[batch["weights"] > 0][np.argsort(batch["examples"][batch["weights"] > 0])]


def test_packed_and_padded_give_the_same_loss_and_gradient_with_dropout(model):
    key = jax.random.key(0)
    results = []
    for layout in ("packed", "padded", "bucketed"):
        batch = batch_of(model, layout)
        (loss, _), grads = jax.jit(jax.value_and_grad(model.loss, has_aux=True))(model.trainable, model.frozen, batch, key)
        results.append((loss / 16, {name: g / 16 for name, g in flatten(grads).items()}))
    assert batch_of(model, "packed")["tokens"].shape[0] < 16 == batch_of(model, "padded")["tokens"].shape[0]
    for loss, grads in results[1:]:
        np.testing.assert_allclose(loss, results[0][0], atol=1e-5)
        for name, grad in grads.items():
            np.testing.assert_allclose(grad, results[0][1][name], atol=1e-5, err_msg=name)
    other, _ = jax.jit(model.loss)(model.trainable, model.frozen, batch_of(model, "packed"), jax.random.key(1))
    assert abs(other / 16 - results[0][0]) > 1e-4  # another key has another dropout mask


def test_changing_one_example_changes_no_bit_of_the_others(model):
    before, after = (logits_by_example(model, batch_of(model, "packed", change)) for change in (False, True))
    others = np.arange(16) != 5
    assert np.array_equal(before[others], after[others])
    assert not np.array_equal(before[5], after[5])


def test_without_segments_examples_affect_each_other(model):
    before, after = (batch_of(model, "packed", change) for change in (False, True))
    for batch in (before, after):
        batch["segments"] = np.minimum(batch["segments"], 1)
    before, after = (logits_by_example(model, batch) for batch in (before, after))
    assert not np.array_equal(before[np.arange(16) != 5], after[np.arange(16) != 5])


def test_recomputing_activations_changes_nothing():
    stored, recomputed = (runs.build_model(runs.config(precision="float32", remat=remat), ("a", "b")) for remat in (False, True))
    batch, key = batch_of(stored, "packed"), jax.random.key(0)
    grads = [flatten(jax.jit(jax.grad(m.loss, has_aux=True))(m.trainable, m.frozen, batch, key)[0]) for m in (stored, recomputed)]
    for name, grad in grads[0].items():
        np.testing.assert_allclose(grad, grads[1][name], atol=1e-6, err_msg=name)
