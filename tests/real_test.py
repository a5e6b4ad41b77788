"""The claims that need real weights, real data or minutes."""

import json

import numpy as np
import pytest

from research.data import pipeline
from research.data.batches import Batches
from research.experiment import build as experiments
from research.train import trainers
from research.train.step import init_state, split_microbatches
from tests import runs

SETS = {"sst2": ("sst2", 64), "trec": ("trec6", 64), "ag_news": ("ag_news", 128), "mrpc": ("mrpc", 128)}


def demo(tmp_path, *flags: str) -> dict:
    runs.start("--config=configs/imdb.py:demo", f"--workdir={tmp_path}", *flags)
    return json.loads((tmp_path / "result.json").read_text())


@pytest.mark.slow
def test_pretraining_is_worth_what_the_readme_says_on_the_demo(tmp_path):
    pretrained, scratch = demo(tmp_path / "pretrained"), demo(tmp_path / "scratch", "--config.weights.source=scratch")
    assert pretrained["metrics"]["test"]["accuracy"] >= 0.92
    assert scratch["metrics"]["test"]["accuracy"] <= 0.75
    assert pretrained["data"] == scratch["data"] and pretrained["data"]["sizes"]["test"] == 1000


@pytest.mark.slow
def test_a_linear_probe_of_minilm_does_at_most_036_of_the_work():
    flops = {}
    for method in ("full", "linear_probe"):
        e = experiments.build(runs.config(arg=f"demo,method={method}", prefix_cache_gb=0.0))
        step, batch = trainers.train_program(e), next(e.train.stream())
        step(init_state(e.model.trainable, e.tx), e.model.frozen, split_microbatches(batch, 1, e.layout), e.dropout_key, e.scalars(0))
        flops[method] = step.flops
    assert flops["linear_probe"] <= 0.36 * flops["full"]


@pytest.mark.data
@pytest.mark.parametrize("task", SETS)
def test_packing_leaves_little_padding_and_few_shapes_on_real_texts(task):
    folder, length = SETS[task]
    c = runs.config(task, "model=minilm,data=files", data__path=str(runs.DATA / folder), max_length=length)
    model, data = runs.build_model(c, ("a", "b")), experiments.load_data(c)
    tokens = pipeline.tokens(model, data.splits["train"])
    padding = {}
    for layout in ("packed", "padded"):
        batches, real, places = Batches(tokens, {}, 32, seed=0, layout=layout), 0, 0
        for epoch in range(3):
            for batch in batches.epoch(epoch):
                real, places = real + (batch["segments"] > 0).sum(), places + batch["segments"].size
        padding[layout] = 1 - real / places
        assert len(batches.shapes) <= 2
    assert padding["packed"] <= 0.05 < 0.4 < padding["padded"]


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_the_recipe_of_sst2_reaches_what_pytorch_reaches(tmp_path):
    flags = ["--config=configs/sst2.py:model=minilm,data=files", f"--config.data.path={runs.DATA / 'sst2'}"]
    runs.start(*flags, f"--workdir={tmp_path}")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["metrics"]["test"]["accuracy"] >= 0.885 - 0.007
    assert result["speed"]["compilations"] <= 6
    lines = [json.loads(line) for line in (tmp_path / "predictions" / "test.jsonl").read_text().splitlines()]
    assert len(lines) == 1821
    assert np.mean([row["label"] == row["prediction"] for row in lines]) == pytest.approx(result["metrics"]["test"]["accuracy"])
