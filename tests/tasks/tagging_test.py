"""The loss, its stats, the predictions and the scores of tagging, beside NumPy and seqeval."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.tasks.base import WORD, word_spans
from research.tasks.tagging import Tagging

TASK = Tagging("made_up", fitted=("O", "B-A", "I-A", "B-C", "I-C"))
PLAIN = Tagging("basic", fitted=("NN", "VB"))
TAGS = st.lists(st.sampled_from(TASK.classes), min_size=1, max_size=6)


def made_up(rows=3, length=7, seed=0):
    """Return logits of tokens, and a batch in which some tokens are the first of a word and the last of each row are padding."""
    rng = np.random.default_rng(seed)
    tags = rng.integers(1, 6, (rows, length)).astype(np.int32) * (rng.random((rows, length)) < 0.6)
    segments = np.ones((rows, length), np.int32)
    tags[:, -2:], segments[:, -2:], tags[0, 0] = 0, 0, 2
    return rng.normal(0, 3, (rows, length, 5)).astype(np.float32), {"tags": tags.astype(np.int32), "segments": segments}


def loss_in_numpy(logits, tags, smoothing=0.0):
    total = 0.0
    for place in zip(*np.nonzero(tags), strict=True):
        z = logits[place].astype(np.float64)
        log_p = z - np.log(np.exp(z).sum())
        target = np.full(5, smoothing / 5)
        target[tags[place] - 1] += 1 - smoothing
        total -= (target * log_p).sum()
    return total


def outputs_of(tags, task=TASK, seen=True):
    """Return outputs [W, C] of which the tags of the sentences are the best."""
    flat = [task.classes.index(tag) for sentence in tags for tag in sentence]
    return {"logits": np.eye(len(task.classes))[flat], "seen": np.full(len(flat), seen)}


def scores(true, predicted, task=TASK, constrained=False):
    task = Tagging("made_up", fitted=task.classes, constrained=constrained)
    stats = {"loss": np.float64(3.0), "weight": np.float64(2.0)}
    return task.metrics(stats, outputs_of(predicted, task), [tuple(tags) for tags in true])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_sum_over_first_tokens(smoothing):
    logits, batch = made_up()
    loss, weight = TASK.loss(logits, batch, smoothing)
    assert (
        float(loss) == pytest.approx(loss_in_numpy(logits, batch["tags"], smoothing), rel=1e-5)
        and float(weight) == (batch["tags"] > 0).sum()
    )
    other = np.where((batch["tags"] > 0)[..., None], logits, 9.0).astype(np.float32)
    assert float(TASK.loss(other, batch, smoothing)[0]) == pytest.approx(float(loss), rel=1e-6)
    assert float(TASK.loss(logits + np.eye(5)[None, 0], batch, smoothing)[0]) != pytest.approx(float(loss), rel=1e-3)


def test_stats_count_words_where_their_truth_and_prediction_meet():
    logits, batch = made_up()
    expected = np.zeros((5, 5))
    for place in zip(*np.nonzero(batch["tags"]), strict=True):
        expected[batch["tags"][place] - 1, logits[place].argmax()] += 1
    stats = {name: np.asarray(x) for name, x in TASK.stats(logits, batch).items()}
    np.testing.assert_array_equal(stats["confusion"], expected)
    scored = TASK.metrics(stats)
    assert scored == {
        "loss": pytest.approx(loss_in_numpy(logits, batch["tags"]) / expected.sum()),
        "accuracy": np.trace(expected) / expected.sum(),
    }


def test_the_divergence_is_that_of_the_words_and_none_between_equals():
    logits, batch = made_up()
    others = logits[::-1]
    p, q = (np.exp(x) / np.exp(x).sum(-1, keepdims=True) for x in (logits.astype(np.float64), others.astype(np.float64)))
    expected = (((p - q) * np.log(p / q)).sum(-1) * (batch["tags"] > 0)).sum()
    assert float(TASK.divergence(logits, others, batch)) == pytest.approx(expected, rel=1e-4) and expected > 1
    assert float(TASK.divergence(logits, logits, batch)) == 0


def test_the_column_of_tags_has_a_row_for_each_word_and_none_without_labels():
    ((per, values),) = TASK.columns([("O", "B-A"), ("I-C",)], 2).values()
    assert per == WORD and values.tolist() == [1, 2, 5] and values.dtype == np.int32
    assert TASK.columns((), 2)["tags"].values.shape == (0,)


def test_published_examples_of_seqeval():
    true = [["O", "O", "B-A", "I-A", "B-A", "O", "O"], ["B-C", "I-C", "O"]]
    predicted = [["O", "O", "B-A", "I-A", "B-A", "I-A", "O"], ["B-C", "I-C", "O"]]
    scored = scores(true, predicted)
    assert scored["f1"] == pytest.approx(2 / 3) and scored["macro_f1"] == pytest.approx(0.75) and scored["accuracy"] == 0.9
    scored = scores([["B-A", "I-A", "O"]], [["I-A", "I-A", "O"]])
    assert (scored["f1"], scored["strict_f1"]) == (1.0, 0.0)
    scored = scores(
        [["O", "O", "O", "B-A", "I-A", "I-A", "O"], ["B-C", "I-C", "O"]], [["O", "O", "B-A", "I-A", "I-A", "I-A", "O"], ["B-C", "I-C", "O"]]
    )
    assert (scored["precision"], scored["recall"], scored["f1"], scored["macro_f1"]) == (0.5, 0.5, 0.5, 0.5)


def test_without_an_entity_the_scores_are_zero():
    assert scores([["O"]], [["O"]]) == {"loss": 1.5} | dict.fromkeys(("precision", "recall", "f1", "macro_f1", "strict_f1"), 0.0) | {
        "accuracy": 1.0
    }


def test_each_word_is_an_entity_where_tags_have_no_prefix():
    scored = scores([["NN", "VB"], ["NN", "NN"]], [["NN", "NN"], ["NN", "VB"]], PLAIN)
    assert scored["f1"] == scored["strict_f1"] == scored["accuracy"] == 0.5 and scored["macro_f1"] == pytest.approx(
        (2 * 2 / (3 + 3) + 0) / 2
    )


def test_predictions_are_valid_sequences_unless_they_are_not_to_be():
    outputs = outputs_of([["I-A", "I-A"], ["O", "I-C"]])
    outputs["logits"][0, 1] = 0.9
    (one, two), texts = TASK.decode(outputs, [("ab  c",), ("d e",)]), [("ab  c",), ("d e",)]
    assert one["prediction"] == ["B-A", "I-A"] and one["entities"] == [{"type": "A", "start": 0, "end": 5, "text": "ab  c"}]
    assert two["prediction"] in (["O", "O"], ["B-C", "I-C"])
    free = Tagging("free", fitted=TASK.classes, constrained=False)
    assert [row["prediction"] for row in free.decode(outputs, texts)] == [["I-A", "I-A"], ["O", "I-C"]]
    (basic,) = PLAIN.decode(outputs_of([["VB", "NN"]], PLAIN), [("a b",)])
    assert basic == {"prediction": ["VB", "NN"]}


@pytest.mark.parametrize("task", [TASK, PLAIN])
def test_words_without_a_token_are_outside(task):
    outputs = outputs_of([[task.classes[1], task.classes[1]]], task)
    outputs["seen"][1], outputs["logits"][1] = False, 0
    (row,) = task.decode(outputs, [("a b",)])
    assert row["prediction"] == [task.classes[1], "O"]


def test_the_decoding_of_many_sentences_is_that_of_each(monkeypatch):
    rng, sizes = np.random.default_rng(0), [3, 1, 5, 2, 4]
    outputs = {"logits": rng.normal(size=(15, 5)), "seen": rng.random(15) < 0.8}
    complete = list(TASK._tags(outputs, sizes))
    monkeypatch.setattr("research.tasks.tagging.CHUNK", 2)
    assert list(TASK._tags(outputs, sizes)) == complete and list(map(len, complete)) == sizes


@given(TAGS)
def test_stand_in_tags_fit_the_words_and_are_valid(words):
    text = " ".join(words * 3)
    tags = Tagging("demo").demo_label(0, 0, (text,))
    assert len(tags) == len(word_spans(text)) and Tagging("demo").normalized(tags) == tags


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@given(st.lists(st.tuples(TAGS, TAGS).map(lambda pair: [tags[: min(map(len, pair))] for tags in pair]), min_size=1, max_size=5))
def test_scores_are_those_of_seqeval_in_both_modes(pairs):
    from seqeval import metrics
    from seqeval.scheme import IOB2

    true, predicted = map(list, zip(*pairs, strict=True))
    scored = scores(true, predicted)
    assert scored["f1"] == pytest.approx(metrics.f1_score(true, predicted), abs=1e-6)
    assert scored["precision"] == pytest.approx(metrics.precision_score(true, predicted), abs=1e-6)
    assert scored["recall"] == pytest.approx(metrics.recall_score(true, predicted), abs=1e-6)
    assert scored["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted), abs=1e-6)
    if any(tag != "O" for tags in (*true, *predicted) for tag in tags):
        assert scored["macro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="macro"), abs=1e-6)
    if any(tag[0] == "B" for tags in (*true, *predicted) for tag in tags):
        assert scored["strict_f1"] == pytest.approx(metrics.f1_score(true, predicted, mode="strict", scheme=IOB2), abs=1e-6)
