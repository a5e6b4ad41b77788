"""The loss, its stats and the predictions of classification, beside NumPy."""

import numpy as np
import pytest

from research.tasks.classification import Classification

TASK = Classification("made_up", labels=tuple("abcde"))


def made_up(rows=4, places=3, classes=5, seed=0):
    """Return logits, and a batch in which about a third of the places is empty."""
    rng = np.random.default_rng(seed)
    batch = {"labels": rng.integers(0, classes, (rows, places)).astype(np.int32)}
    batch["weights"] = (rng.random((rows, places)) < 0.7).astype(np.float32)
    batch["weights"][0, 0], batch["weights"][-1, -1] = 1.0, 0.0
    return rng.normal(0, 3, (rows, places, classes)).astype(np.float32), batch


def loss_in_numpy(logits, batch, smoothing=0.0):
    total, classes = 0.0, logits.shape[-1]
    for place in zip(*np.nonzero(batch["weights"]), strict=True):
        z = logits[place].astype(np.float64)
        log_p = z - z.max() - np.log(np.exp(z - z.max()).sum())
        target = np.full(classes, smoothing / classes)
        target[batch["labels"][place]] += 1 - smoothing
        total -= batch["weights"][place] * (target * log_p).sum()
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_loss_equals_numpys_with_label_smoothing(smoothing, seed):
    logits, batch = made_up(seed=seed)
    actual = float(TASK.loss(logits, batch, smoothing)[0])
    assert actual == pytest.approx(loss_in_numpy(logits, batch, smoothing), rel=1e-5)
    assert actual != pytest.approx(loss_in_numpy(logits, batch, smoothing + 0.2), rel=1e-3)


def test_the_loss_is_a_sum_over_weights_and_not_a_mean():
    logits, batch = made_up()
    doubled = batch | {"weights": 2 * batch["weights"]}
    assert float(TASK.loss(logits, doubled)[0]) == pytest.approx(2 * float(TASK.loss(logits, batch)[0]), rel=1e-6)


def test_an_example_that_is_not_there_does_not_count():
    logits, batch = made_up()
    empty = batch["weights"] == 0
    nonsense = batch | {"labels": np.where(empty, 3, batch["labels"]).astype(np.int32)}
    other = np.where(empty[..., None], -40.0, logits).astype(np.float32)
    one, two = TASK.stats(logits, batch), TASK.stats(other, nonsense)
    assert float(one["loss"]) == float(two["loss"])
    np.testing.assert_array_equal(one["confusion"], two["confusion"])
    assert np.asarray(one["confusion"]).sum() == batch["weights"].sum() < batch["weights"].size
    there = batch | {"weights": np.ones_like(batch["weights"])}
    assert float(TASK.stats(logits, there)["loss"]) != pytest.approx(float(one["loss"]))


def test_stats_count_each_example_where_its_truth_and_prediction_meet():
    logits, batch = made_up()
    expected = np.zeros((5, 5))
    for row, place in zip(*np.nonzero(batch["weights"]), strict=True):
        expected[batch["labels"][row, place], logits[row, place].argmax()] += 1
    np.testing.assert_array_equal(TASK.stats(logits, batch)["confusion"], expected)
    assert not np.array_equal(expected, expected.T), "truth and prediction can be told apart here"


@pytest.mark.parametrize("cuts", [(), (6,), (1, 6, 7), tuple(range(1, 12))])
def test_stats_add_up_over_any_split_of_the_rows(cuts):
    logits, batch = made_up(rows=12)
    full_batch = TASK.stats(logits, batch)
    edges = [0, *cuts, 12]
    parts = [TASK.stats(logits[i:j], {k: v[i:j] for k, v in batch.items()}) for i, j in zip(edges, edges[1:], strict=False)]
    assert sum(float(part["loss"]) for part in parts) == pytest.approx(float(full_batch["loss"]), rel=1e-5)
    np.testing.assert_array_equal(sum(np.asarray(part["confusion"]) for part in parts), full_batch["confusion"])


def test_the_mean_of_batch_means_would_be_another_number():
    logits, batch = made_up(rows=12)
    halves = [(logits[:2], {k: v[:2] for k, v in batch.items()}), (logits[2:], {k: v[2:] for k, v in batch.items()})]
    exact = TASK.metrics({k: np.asarray(v) for k, v in TASK.stats(logits, batch).items()})["loss"]
    assert exact == pytest.approx(loss_in_numpy(logits, batch) / batch["weights"].sum(), rel=1e-5)
    naive = np.mean([loss_in_numpy(*half) / half[1]["weights"].sum() for half in halves])
    assert naive != pytest.approx(exact, rel=1e-3)


def test_the_mean_loss_is_a_quotient_of_two_sums():
    binary = Classification("binary", labels=("neg", "pos"))
    actual = binary.metrics({"loss": np.float64(30.0), "weight": np.float64(100.0), "confusion": np.array([[50, 10], [5, 35]])})
    assert actual["loss"] == pytest.approx(0.3) and actual["accuracy"] == pytest.approx(0.85)


def test_the_column_of_labels_holds_places_in_the_list_of_classes():
    task = Classification("open").fit(["pos", "neg", "pos"], "here")
    ((per, values),) = task.columns(["pos", "neg", "pos"], 3).values()
    assert per == "example" and values.tolist() == [1, 0, 1] and values.dtype == np.int32
    assert Classification("fixed", labels=("pos", "neg")).columns(["pos"], 1)["labels"].values.tolist() == [0]
    assert task.columns((), 2)["labels"].values.tolist() == [0, 0]
    with pytest.raises(KeyError, match="neutral"):
        task.columns(["neutral"], 1)


def test_predictions_name_the_likeliest_label_and_every_probability():
    binary = Classification("binary", labels=("neg", "pos"))
    one, two = binary.decode({"logits": np.array([[0.0, np.log(3.0)], [1000.0, 0.0]])}, [("a",), ("b",)])
    assert one == {"prediction": "pos", "probabilities": {"neg": 0.25, "pos": 0.75}}
    assert two == {"prediction": "neg", "probabilities": {"neg": 1.0, "pos": 0.0}}
