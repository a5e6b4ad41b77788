"""Embeddings: vectors of the pretrained encoder and of a trained one, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from scipy import stats

from research import weights
from research.config import fields
from research.errors import InputError
from research.experiment import modes
from research.models.heads import pool
from tests import runs

TEXTS = ("a film", "a much longer text about a film", "another one")


@pytest.fixture
def source(tmp_path):
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    return str(tmp_path / "in.txt")


def embedded(config, workdir, source, output):
    modes.do("embed", config, workdir, source=source, output=str(output))
    return np.load(output)


def test_the_vectors_are_the_pooled_states_of_the_encoder_in_order(tmp_path, source):
    c = runs.config("custom", precision="float32", pooling="mean")
    vectors = embedded(c, tmp_path / "none", source, tmp_path / "out.npy")
    model, params, tokenizer = weights.load("tiny")
    encoded = tokenizer(list(TEXTS), padding=True, return_tensors="np")
    batch = weights.padded_batch(encoded["input_ids"], encoded["attention_mask"])
    expected = pool(model.apply({"params": params["encoder"]}, batch), batch, "mean")[:, 0]
    assert vectors.shape == expected.shape and vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert not (tmp_path / "none").exists() and np.abs(vectors - vectors[::-1]).max() > 1e-3
    first = embedded(fields.copied(c, {"pooling": "first"}), tmp_path / "none", source, tmp_path / "first.npy")
    assert np.abs(first - vectors).max() > 1e-3


def test_a_finished_run_embeds_with_its_trained_encoder_and_its_deltas(tmp_path, source):
    c = runs.config("custom", method="lora", learning_rate=0.1, pooling="mean", precision="float32")
    modes.run(c, tmp_path / "run", modes.predictions.QUIET)
    trained = embedded(c, tmp_path / "run", source, tmp_path / "trained.npy")
    basic = embedded(c, tmp_path / "none", source, tmp_path / "basic.npy")
    assert trained.shape == basic.shape and np.abs(trained - basic).max() > 1e-3


def test_what_cannot_be_embedded_is_one_line(tmp_path, source):
    c = runs.config("custom")
    for output, message in (
        (None, "needs --output=FILE.npy"),
        ("out.csv", "needs --output=FILE.npy, not out.csv"),
        ("no/a.npy", "its folder"),
    ):
        with pytest.raises(InputError, match=message):
            modes.do("embed", c, tmp_path / "none", source=source, output=output)
    with pytest.raises(InputError, match="--mode=embed needs --input="):
        modes.do("embed", c, tmp_path / "none", output="a.npy")


@pytest.mark.parametrize(
    ("modules", "pooling", "message"),
    [
        (["Transformer", "Pooling", "Normalize"], {"pooling_mode_mean_tokens": True}, ""),
        (["Transformer", "Pooling"], {"pooling_mode": "mean"}, ""),
        (["Transformer", "Pooling"], {"pooling_mode_weightedmean_tokens": True}, "weightedmean does not exist here"),
        (
            ["Transformer", "Pooling"],
            {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
            r"max \+ mean does not",
        ),
        (["Transformer", "Pooling", "LSTM"], {"pooling_mode": "mean"}, "a module LSTM cannot be computed here"),
    ],
)
def test_the_folder_of_the_weights_says_how_vectors_are_made(tmp_path, source, modules, pooling, message):
    folder = tmp_path / "model"
    shutil.copytree(weights.begin(runs.config()).folder, folder)
    entries = [{"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": f"x.models.{name}"} for i, name in enumerate(modules)]
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 32, **pooling}))
    c = runs.config("custom", weights__source=str(folder), precision="float32")
    if message:
        with pytest.raises(InputError, match=message):
            embedded(c, tmp_path / "none", source, tmp_path / "a.npy")
        return
    lengths = np.linalg.norm(embedded(c, tmp_path / "none", source, tmp_path / "a.npy"), axis=1)
    assert np.allclose(lengths, 1, atol=1e-5) == ("Normalize" in modules)


@pytest.mark.data
def test_minilm_has_its_published_correlation_on_stsb(tmp_path):
    """Check the figure of the model card of all-MiniLM-L6-v2: 82.03 (Spearman, STS-B test)."""
    rows = [line.split("\t") for line in (runs.DATA / "stsb" / "test.tsv").read_text().splitlines()[1:]]
    vectors = []
    for column in (0, 1):
        (tmp_path / f"{column}.txt").write_text("".join(f"{row[column]}\n" for row in rows))
        c = runs.config("custom", "model=minilm", precision="float32")
        vectors.append(embedded(c, tmp_path / "none", str(tmp_path / f"{column}.txt"), tmp_path / f"{column}.npy"))
    scores = [float(row[2]) for row in rows]
    assert stats.spearmanr((vectors[0] * vectors[1]).sum(1), scores)[0] == pytest.approx(0.8203, abs=1e-3)
