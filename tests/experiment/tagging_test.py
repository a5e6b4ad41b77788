"""Runs that tag words: every method has a plan, layouts agree, predictions fit the words, and what is exported is the same elsewhere."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from research import weights
from research.adapt import methods, summary
from research.data import pipeline
from research.data.batches import Batches
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import export, modes
from research.params.tree import flatten
from research.tasks import iob
from research.tasks.base import word_spans
from tests import runs
from tests.adapt.small import noisy
from tests.weights import families

QUIET = Console(quiet=True)
TAGS = ("O", "B-A", "I-A", "B-C", "I-C")


def config(**changes):
    return runs.config("conll2003", **{"precision": "float32", "max_length": 64} | changes)


def trained(folder, **changes):
    """Return a finished smoke run at a high rate: its config and `result.json`."""
    c = config(learning_rate=0.01, total_steps=8, **changes)
    return c, modes.run(c, folder, QUIET)


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_has_a_plan(method):
    model = experiments.plan_of(config(method=method)).model
    assert "pooling: none: the head reads every token" in summary.summary(model)
    assert model.head.classes == 3 and "head/classifier/kernel" in flatten(model.trainable)


@pytest.mark.parametrize("method", ["full", "lora", "linear_probe", "bitfit", "prefix", "rdrop", "feature_bilstm", "smart"])
def test_methods_run_and_predictions_have_a_tag_for_every_word(tmp_path, method):
    c, result = trained(tmp_path, method=method)
    rows = read(tmp_path / "predictions" / "test.jsonl")
    assert len(rows) == 16
    for row in rows:
        words = [row["text"][begin:end] for begin, end in word_spans(row["text"])]
        assert len(row["label"]) == len(row["prediction"]) == len(words)
        spans = [(entity["type"], entity["text"]) for entity in row["entities"]]
        assert spans == [(kind, " ".join(words[a:b])) for kind, a, b in iob.spans(row["prediction"])]
        assert all(row["text"][entity["start"] : entity["end"]] == entity["text"] for entity in row["entities"])
    detected, true = ({(row["id"], *span) for row in rows for span in iob.spans(row[key])} for key in ("prediction", "label"))
    assert result["metrics"]["test"]["f1"] == pytest.approx(2 * len(detected & true) / (len(detected) + len(true)))
    assert result["selection"]["metric"] == "f1" and result["classes"]["test"]["LONG"]["support"] == len(true)


def test_packed_and_padded_give_the_same_loss_gradient_and_outputs():
    experiment = experiments.build(config(dropout=0.3))
    model, key, results = experiment.model, jax.random.key(0), []
    column = experiment.train.columns
    for layout in ("packed", "padded"):
        batches = Batches(experiment.train.tokens, column, 8, seed=0, layout=layout)
        batch = batches.lay_out(np.arange(8))
        (loss, stats), grads = jax.jit(jax.value_and_grad(model.loss, has_aux=True))(model.trainable, model.frozen, batch, key)
        places, words = batches.members(batch, "word")
        logits = np.asarray(model.logits(model.trainable, model.frozen, batch))[places][np.argsort(words)]
        results.append((batch["tokens"].shape, float(stats["weight"]), float(loss), logits, flatten(grads)))
    (one, weight, loss, logits, grads), (other, *others) = results
    assert one[0] < other[0] == 8 and weight == others[0] == len(logits) > 8
    assert loss == pytest.approx(others[1], rel=1e-5)
    np.testing.assert_allclose(logits, others[2], atol=1e-5)
    for name, grad in grads.items():
        np.testing.assert_allclose(grad / weight, others[3][name] / weight, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("model", ["bilstm", "textcnn"])
def test_models_from_scratch_tag_too(tmp_path, model):
    result = modes.run(runs.config("conll2003", f"smoke,model={model}"), tmp_path, QUIET)
    assert 0 <= result["metrics"]["test"]["f1"] <= 1


def test_a_trained_run_tags_lines_and_scores_columns(tmp_path):
    c, _ = trained(tmp_path / "run")
    (tmp_path / "in.txt").write_text("The  wonderful film\n" + "word " * 70 + "\n")
    printed = Console(record=True, width=300)
    one, other = modes.predict(c, tmp_path / "run", str(tmp_path / "in.txt"), printed)
    assert len(one["prediction"]) == 3 and len(other["prediction"]) == 70 and set(other["prediction"][62:]) == {"O"}
    assert "words have no token left and are predicted as O" in printed.export_text()
    (tmp_path / "in.conll").write_text("The O\nwonderful I-LONG\n\nfilm O\n")
    scores = modes.evaluate_run(c, tmp_path / "run", str(tmp_path / "in.conll"))["input"]
    assert set(scores) == {"loss", "precision", "recall", "f1", "macro_f1", "strict_f1", "accuracy"}
    (tmp_path / "in.conll").write_text("The O\nwonderful B-GOD\n")
    with pytest.raises(InputError, match="tag 'B-GOD' is not in train"):
        modes.evaluate_run(c, tmp_path / "run", str(tmp_path / "in.conll"))


def test_what_has_no_meaning_for_a_head_of_tokens_is_refused(tmp_path):
    with pytest.raises(
        InputError, match="pooling=mean: task 'conll2003' reads every token, so nothing is pooled; leave out --config.pooling"
    ):
        experiments.plan_of(config(pooling="mean"))
    c, _ = trained(tmp_path / "run")
    for form in ("peft", "sentence-transformers"):
        with pytest.raises(InputError, match=f"--format={form} has no place for a head that reads every token"):
            export.export(modes.load_trained(c, tmp_path / "run"), weights.begin(c), tmp_path / "run", form, tmp_path / "out")
    folder = tmp_path / "out"
    assert export.export(modes.load_trained(c, tmp_path / "run"), weights.begin(c), tmp_path / "run", None, folder) == "huggingface"
    with pytest.raises(InputError, match="its head is for tokens, not for texts"):
        experiments.plan_of(runs.config("custom", weights__source=str(folder), weights__head=True))
    with pytest.raises(InputError, match="the loaded head reads the last states, but the method reads others"):
        experiments.plan_of(config(weights__source=str(folder), weights__head=True, method="last4_concat"))


def test_an_exported_head_is_read_back_with_its_tags_in_their_places(tmp_path):
    c, _ = trained(tmp_path / "run")
    model = modes.load_trained(c, tmp_path / "run")
    export.export(model, weights.begin(c), tmp_path / "run", None, tmp_path / "out")
    again = runs.build_model(config(weights__source=str(tmp_path / "out"), weights__head=True), ("I-LONG", "O", "B-LONG"))
    kernel = np.asarray(again.trainable["head"]["classifier"]["kernel"])
    np.testing.assert_allclose(kernel[:, [1, 2, 0]], model.trainable["head"]["classifier"]["kernel"], atol=1e-6)
    assert "aggregation_strategy" in (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "in.txt").write_text("The wonderful film\n")
    new = config(weights__source=str(tmp_path / "out"), weights__head=True)
    rows = [list(modes.predict(x, folder, str(tmp_path / "in.txt"))) for x, folder in ((c, tmp_path / "run"), (new, tmp_path / "none"))]
    assert rows[0] == rows[1]


@pytest.mark.torch
@pytest.mark.parametrize("name", families.CONFIGS)
def test_transformers_gives_the_same_logits_for_the_tokens(tmp_path, name):
    import torch
    from transformers import AutoModelForTokenClassification

    source = families.save(tmp_path / "base", name, families.classifier(name))
    families.save_tokenizer(source)
    model = runs.build_model(config(weights__source=str(source), max_length=32), TAGS)
    model = dataclasses.replace(model, trainable=noisy(model.trainable, 0.1))
    (tmp_path / "out").mkdir()
    export._write_model(
        tmp_path / "out", model, weights.begin(model.config), {n: np.asarray(a) for n, a in flatten(model.trainable).items()}
    )
    reference = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    batch = export._batch(model)
    given = {name: torch.tensor(batch[flax], dtype=torch.long) for flax, name in (("tokens", "input_ids"), ("segments", "attention_mask"))}
    with torch.no_grad():
        detected = reference(**given).logits.numpy()
    is_token, flax = batch["segments"] > 0, export._logits(model, batch)
    np.testing.assert_allclose(detected[is_token], flax[is_token], atol=1e-4, rtol=0)
    assert reference.config.id2label == dict(enumerate(TAGS)) and np.ptp(flax) > 1e-2 and flax.shape[1:] == detected.shape[1:]


@pytest.mark.torch
def test_the_pipeline_of_transformers_tags_like_a_trained_run(tmp_path):
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    c, _ = trained(tmp_path / "run", method="lora")
    model = modes.load_trained(c, tmp_path / "run")
    export.export(model, weights.begin(c), tmp_path / "run", None, tmp_path / "out")
    texts = ["The wonderful film", "I saw it twice"]
    examples = experiments.load_data(c).splits["test"].take([0, 1])
    examples = dataclasses.replace(examples, texts=tuple((text,) for text in texts), labels=())
    batches = pipeline.batches(model, examples, 1, keep=False)
    batch = batches.lay_out(np.arange(2))
    places, words = batches.members(batch, "word")
    flax = np.asarray(model.logits(model.trainable, model.frozen, batch))[places][np.argsort(words)]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path / "out").eval()
    reference = []
    for text in texts:
        given = tokenizer(text.split(), is_split_into_words=True, return_tensors="pt")
        ids, logits = given.word_ids(), loaded(**given).logits.detach().numpy()[0]
        reference += [logits[ids.index(word)] for word in range(len(text.split()))]
    np.testing.assert_allclose(flax, reference, atol=1e-4, rtol=0)
