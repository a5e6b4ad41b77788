"""`python -m research.weights.parity`: its output for models that agree with PyTorch and for models that do not."""

import dataclasses
import shutil
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research import weights
from research.errors import InputError
from research.weights import parity
from tests import runs
from tests.weights import families, tiny


def command(*flags: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "research.weights.parity", *flags]
    return subprocess.run(line, env=runs.environment(), cwd=runs.ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("name", "kind"),
    [("albert-groups", "classifier"), ("modernbert", "masked_lm"), ("deberta-v3", "tagger"), ("gpt2", "lm"), ("bert", None)],
)
def test_a_model_that_transformers_saved_agrees(name, kind, tmp_path, capsys):
    families.torch_model(name, kind).save_pretrained(tmp_path)
    assert parity.check(str(tmp_path), 2e-5)
    stages = len(weights.load(str(tmp_path))[0].stages)
    assert list(parity.compare(str(tmp_path))) == ["embeddings", *(f"layer {i}" for i in range(1, stages)), *(["logits"] if kind else [])]
    printed = capsys.readouterr().out
    assert f"layer {stages - 1}" in printed and ("logits" in printed) == (kind is not None) and "over" not in printed


@pytest.mark.torch
def test_the_real_model_agrees():
    assert parity.check("minilm", 2e-5)


@pytest.mark.torch
def test_a_changed_weight_is_over_the_tolerance_from_its_layer_on(tmp_path, monkeypatch, capsys):
    families.torch_model("bert", "classifier").save_pretrained(tmp_path / "before")
    shutil.copytree(tmp_path / "before", tmp_path / "after")
    file, load = tmp_path / "after" / "model.safetensors", parity.load_pytorch
    tensors = load_file(file)
    tensors["bert.encoder.layer.1.output.dense.weight"][0, 0] += 0.1
    save_file(tensors, file)
    monkeypatch.setattr(parity, "load_pytorch", lambda c: load(dataclasses.replace(c, folder=tmp_path / "before")))
    assert not parity.check(str(tmp_path / "after"), 2e-5)
    differences = parity.compare(str(tmp_path / "after"))
    assert (
        max(differences["embeddings"], differences["layer 1"])
        <= 2e-5
        < min(differences["layer 2"], differences["layer 3"], differences["logits"])
    )
    assert "over 2e-05" in capsys.readouterr().out
    assert parity.check(str(tmp_path / "before"), 2e-5)


def test_nan_is_never_within_the_tolerance(monkeypatch):
    monkeypatch.setattr(parity, "compare", lambda source: {"layer 1": float("nan")})
    assert not parity.check("anything", 1e9)


@pytest.mark.torch
def test_a_difference_over_the_tolerance_is_exit_code_1(tmp_path):
    families.torch_model("roberta", "classifier").save_pretrained(tmp_path)
    done = command(f"--model={tmp_path}", "--tolerance=1e-12")
    assert done.returncode == 1 and "over 1e-12" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--model=nowhere"], "error: weights.source 'nowhere': no such folder"),
        (["--model=tests"], "error: tests: no config.json; there are: "),
        ([], "error: --model=FOLDER is missing"),
        (["--modle=minilm"], "error: Unknown command line flag 'modle'. Did you mean: model ?"),
        (["tiny"], "error: argument 'tiny' is not a flag"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(flags, complaint):
    done = command(*flags)
    assert done.returncode == 2 and done.stderr.startswith(complaint) and done.stderr.count("\n") == 1, done.stderr


def test_without_pytorch_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(InputError, match="PyTorch, which is not installed here; pip install torch"):
        parity.compare(str(tiny.save(tmp_path, tiny.tensors())))


def test_texts_of_a_model_without_a_tokenizer_have_mixed_lengths_and_both_types(tmp_path):
    encoder, _, tokenizer = weights.load(str(tiny.save(tmp_path, tiny.tensors())))
    texts = parity._texts(encoder.config, tokenizer)
    assert [len(ids) for ids, _, _ in texts] == [9, 1, encoder.config.max_length]
    assert all((ids < 50).all() and (ids >= 5).all() and mask.all() for ids, mask, _ in texts)
    assert np.array_equal(texts[0][2], [0] * 5 + [1] * 4)
