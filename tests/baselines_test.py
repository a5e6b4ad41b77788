"""Models that are trained from scratch, through the whole program: the same tasks, methods and modes as pretrained ones."""

import gzip
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from research.adapt import flops, summary
from research.config import fields
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import modes
from research.params.tree import digest, flatten, merge
from research.train import trainers
from research.train.step import init_state, split_microbatches
from research.weights import hub
from tests import runs

NAMES = hub.BASELINES
TABLE = "encoder/embeddings/word/embedding"


@pytest.fixture(scope="module", autouse=True)
def compiled(tmp_path_factory):
    """Share compiled programs among the tests of this module."""
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, str(tmp_path_factory.mktemp("compiled"))):
        yield


def config(name, **changes):
    return runs.config("imdb", f"smoke,model={name}", **changes)


def run(workdir, name, **changes):
    return modes.run(config(name, **changes), workdir, Console(quiet=True))


@pytest.fixture
def glove(tmp_path):
    """Write a file of vectors [16] for two words of the demo and one other word. Return its path and the demo's words."""
    words = experiments.plan_of(config("textcnn")).model.words
    path = tmp_path / "glove.txt.gz"
    rows = {words[0]: np.full(16, 0.5), words[3]: np.arange(16), "xyzzy": np.ones(16)}
    path.write_bytes(gzip.compress("".join(f"{word} {' '.join(map(str, row))}\n" for word, row in rows.items()).encode()))
    return path, words


@pytest.mark.parametrize("name", NAMES)
def test_a_run_is_trained_then_evaluated_then_used_without_its_training_texts(name, tmp_path, monkeypatch):
    result = run(tmp_path / "run", name)
    assert result["weights"] == {"source": name, "sha256": ""} and result["status"] == "finished"
    assert modes.evaluate_run(config(name), tmp_path / "run") == result["metrics"]

    monkeypatch.setattr(experiments, "load_data", None)  # there is nothing to read
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions" / "test.jsonl").read_text().splitlines()]
    (tmp_path / "texts.txt").write_text("".join(f"{row['text']}\n" for row in rows))
    predictions = list(modes.predict(config(name), tmp_path / "run", str(tmp_path / "texts.txt")))
    assert [row["prediction"] for row in predictions] == [row["prediction"] for row in rows]
    for one, other in zip(predictions, rows, strict=True):
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-4)


def test_its_words_are_those_of_the_training_texts_that_are_used():
    e, rare = experiments.plan_of(config("textcnn")), experiments.plan_of(config("textcnn", textcnn__min_count=3))
    text = " ".join(text.lower() for (text,) in e.data.splits["train"].texts)
    assert e.model.words and all(word in text for word in e.model.words)
    assert set(rare.model.words) < set(e.model.words)
    assert flatten(e.model.trainable)[TABLE].shape == (3 + len(e.model.words), 16)
    assert experiments.plan_of(runs.config()).model.words == ()  # a pretrained model has its own


def test_what_chance_decides_depends_on_neither_method_nor_vectors(glove):
    reference = experiments.build(config("textcnn"))
    for changes in ({"method": "linear_probe"}, {"weights__source": str(glove[0])}):
        other = experiments.build(config("textcnn", **changes))
        assert digest(reference.model.trainable["head"]) == digest(other.model.trainable["head"])
        for a, b in zip(reference.train.epoch(1), other.train.epoch(1), strict=True):
            assert np.array_equal(a["examples"], b["examples"])


def test_vectors_stand_in_the_rows_of_their_words_and_the_others_begin_random(glove):
    path, words = glove
    without_vectors, model = (experiments.build(config("textcnn", **c)).model for c in ({}, {"weights__source": str(path)}))
    before, after = (np.asarray(flatten(m.trainable)[TABLE]) for m in (without_vectors, model))
    np.testing.assert_array_equal(after[3], np.full(16, 0.5))
    np.testing.assert_array_equal(after[6], np.arange(16))
    assert np.array_equal(np.delete(after, (3, 6), 0), np.delete(before, (3, 6), 0))
    assert np.abs(before).max() <= 0.25 and before.std() > 0.1
    assert f"word vectors: 2 of {len(words):,} words" in summary.summary(model) and "word vectors" not in summary.summary(without_vectors)
    assert len(model.weights_sha256) == 64 and not without_vectors.weights_sha256


def test_a_run_with_frozen_vectors_is_refused_other_vectors(glove, tmp_path):
    path, _ = glove
    changes = {"method": "embeddings_frozen", "weights__source": str(path)}
    result = run(tmp_path / "run", "textcnn", **changes)
    assert result["weights"]["source"] == str(path) and len(result["weights"]["sha256"]) == 64
    assert modes.evaluate_run(config("textcnn", **changes), tmp_path / "run") == result["metrics"]
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b"0.5", b"0.6")))
    with pytest.raises(InputError, match="trained on other weights"):
        modes.evaluate_run(config("textcnn", **changes), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"weights__source": "no/such.txt"}, ["'no/such.txt'", "model=textcnn", "word vectors"]),
        ({"weights__sha256": "0" * 64}, ["expected 000"]),
        ({"method": "lora"}, ["lora", "attention/query"]),
        ({"method": "layernorm"}, ["'norms'"]),
        ({"method": "top_k", "top_layers": 2}, ["top_layers=2", "1 layers"]),
        ({"method": "scalar_mix"}, ["scalar_mix", "16, 24"]),
        ({"textcnn__windows": "3,,4"}, ["textcnn.windows='3,,4'"]),
        ({"pooling": "pooler", "model": "textcn"}, ["'textcn'", "'textcnn'"]),
        ({"weights__source": "bilstm", "model": "tiny"}, ["bilstm", "trained from scratch"]),
    ],
)
def test_what_cannot_be_is_one_line(changes, fragments):
    with pytest.raises(InputError) as error:
        experiments.plan_of(config("textcnn", **changes))
    assert all(word in str(error.value) for word in fragments) and "\n" not in str(error.value), error.value


def test_a_file_without_a_known_word_and_one_of_another_digest_are_refused(glove, tmp_path):
    (tmp_path / "none.txt").write_text(f"xyzzy {' '.join(['1'] * 16)}\n")
    with pytest.raises(InputError, match="none.txt: no vector for any of"):
        experiments.build(config("textcnn", weights__source=str(tmp_path / "none.txt")))
    with pytest.raises(InputError, match="sha256 is .*expected 000"):
        experiments.build(config("textcnn", weights__source=str(glove[0]), weights__sha256="0" * 64))
    with pytest.raises(InputError, match="row 1: 16 numbers.*textcnn.embedding=8"):
        experiments.build(config("textcnn", weights__source=str(glove[0]), textcnn__embedding=8))


def losses(name, steps=6, **changes):
    e = experiments.build(config(name, total_steps=steps, precision="float32", warmup_percent=0.0, **changes))
    state, step, values = init_state(e.model.trainable, e.tx), trainers.train_program(e), []
    for _, batch in zip(range(steps), e.train.stream(), strict=False):
        state, stats = step(
            state, e.model.device_constants, split_microbatches(batch, 1, e.layout), e.dropout_key, e.scalars(int(state.step))
        )
        values.append(float(stats["loss"] / stats["weight"]))
    return np.array(values)


@pytest.mark.parametrize(
    ("name", "method"),
    [("textcnn", "embeddings_frozen"), *(pytest.param("bilstm", m, marks=pytest.mark.slow) for m in ("embeddings_frozen", "chosen_layer"))],
)
def test_frozen_stages_are_computed_once_whatever_their_sizes(name, method):
    cached, fresh = (losses(name, method=method, prefix_cache_gb=budget, learning_rate=0.05) for budget in (4.0, 0.0))
    np.testing.assert_allclose(cached, fresh, atol=1e-5)
    assert np.ptp(fresh) > 1e-4


@pytest.mark.slow  # models/bilstm_test and models/textcnn_test see it of the encoders, packing_test of a training
@pytest.mark.parametrize("name", NAMES)
def test_packed_and_padded_batches_train_alike(name):
    packed, padded = (losses(name, packing=packing) for packing in ("packed", "padded"))
    np.testing.assert_allclose(packed, padded, atol=1e-5)
    assert np.abs(packed - losses(name, seed=1)).max() > 1e-3


def test_the_sizes_of_stages_are_known_where_states_are_kept_or_moved():
    model = experiments.plan_of(config("textcnn", method="linear_probe")).model
    assert model.widths == (16, 24) and model.reads(2) == (1,) and model.reads(1) == (0,)
    assert model.embedding_noise_width == 24  # noise enters where something trains
    assert experiments.plan_of(config("textcnn")).model.embedding_noise_width == 16


@pytest.mark.slow
@pytest.mark.parametrize("method", ["bitfit", "smart", "soft_prompt"])
def test_methods_that_have_a_place_to_go_run(method):
    assert np.isfinite(losses("bilstm", steps=2, method=method)).all()


def test_stages_open_one_after_the_other(tmp_path):
    result = run(tmp_path, "bilstm", method="gradual_unfreezing", total_steps=6)
    assert result["status"] == "finished" and "phases: 3" in (tmp_path / "plan.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_what_freezing_the_words_saves_is_predicted(name):
    """Compare the predicted FLOPs with XLA's count, which has only products: the table is small beside them."""
    sizes = {"bilstm__embedding": 64, "bilstm__size": 64, "textcnn__embedding": 64, "textcnn__filters": 64}
    counted, predicted = {}, {}
    for method in ("full", "embeddings_frozen"):
        e = experiments.build(config(name, method=method, prefix_cache_gb=0.0, textcnn__min_count=3, bilstm__min_count=3, **sizes))
        step, batch = trainers.train_program(e), next(e.train.stream())
        step(init_state(e.model.trainable, e.tx), e.model.frozen, split_microbatches(batch, 1, e.layout), e.dropout_key, e.scalars(0))
        counted[method] = step.flops
        shape = {n: leaf.shape for n, leaf in flatten(merge(e.model.trainable, e.model.frozen)).items()}
        rows, length = batch["tokens"].shape
        predicted[method] = flops.step(e.model.plan, shape, flops.Shape.of(e.model.encoder), rows * length, length)
    assert predicted["full"] == pytest.approx(counted["full"], rel=0.1)
    saved = counted["embeddings_frozen"] / counted["full"]
    assert predicted["embeddings_frozen"] / predicted["full"] == pytest.approx(saved, abs=0.05) and saved < 0.9


def test_what_suits_a_model_from_nothing_is_chosen_by_its_name_whatever_the_task():
    for name in ("sst2", "trec", "imdb"):
        c = runs.config(name, "model=bilstm,data=files")
        assert (c.learning_rate, c.dropout, c.total_epochs) == tuple(
            fields.FROM_NOTHING[f] for f in ("learning_rate", "dropout", "total_epochs")
        )
    assert runs.config("sst2", "model=minilm,data=files").dropout == 0.1
    assert set(fields.SMALL) == set(hub.BASELINES)  # configs import nothing that imports jax
    assert runs.config("sst2", "smoke,model=bilstm").bilstm.size == 8 and runs.config("sst2", "smoke").model == "tiny"


def test_random_parameters_do_not_depend_on_how_many_words_are_known_but_for_the_table():
    small, large = (runs.build_model(config("bilstm"), ("a", "b"), words) for words in ((), ("fine", "film")))
    one, other = flatten(small.trainable), flatten(large.trainable)
    assert all(np.array_equal(one[name], other[name]) for name in one if name != TABLE)
    assert jax.tree.leaves(small.frozen) == []
