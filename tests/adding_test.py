"""The README's section on adding a task, a method and a model, followed to the letter."""

import dataclasses
import importlib.util
import re

import pytest
from rich.console import Console

from research import weights
from research.adapt import freezing, methods
from research.config import fields
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import export, modes
from research.models import families
from research.tasks import catalog
from research.tasks.classification import Classification
from research.weights import parity, tables
from tests import runs
from tests.weights.families import classifier, save, save_tokenizer

SECTION = (runs.ROOT / "README.md").read_text().partition("## Adding")[2].partition("\n## ")[0]
TASK, METHOD, MODEL = re.findall(r"```python\n(.*?)```", SECTION, re.DOTALL)
QUIET = Console(quiet=True)


def follow(monkeypatch, code, real=(), **names):
    """Run the code of the README and return the names it defines. Entries that it adds to the tables in `real` stay there until the test
    ends."""
    names |= {name: dict(table) for name, table in dict(real).items()}
    exec(code, names)
    for name, table in dict(real).items():
        for key in names[name].keys() - table.keys():
            monkeypatch.setitem(table, key, names[name][key])
    return names


def test_a_task_is_a_row_and_a_config_like_that_of_trec(tmp_path, monkeypatch):
    follow(monkeypatch, TASK, {"TASKS": catalog.TASKS}, Classification=Classification)
    text = (runs.ROOT / "configs" / "trec.py").read_text().replace('"trec"', '"tone"')
    (tmp_path / "tone.py").write_text(text)
    spec = importlib.util.spec_from_file_location("tone", tmp_path / "tone.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    c = module.get_config("smoke")
    rows = "text\tlabel\n" + "".join(f"text {i}\t{('calm', 'angry')[i % 2]}\n" for i in range(40))
    for split in ("train", "test"):
        (tmp_path / f"{split}.tsv").write_text(rows)
    changes = {"data.source": "files", "data.path": str(tmp_path), "data.eval_examples": 0, "parallel": "jit"}
    c = experiments.resolve(fields.override(c, changes))
    result = modes.run(c, tmp_path / "run", QUIET)
    assert result["config"]["task"] == "tone" and result["data"]["sizes"]["test"] == 40
    assert modes.load_trained(c, tmp_path / "run").task.classes == ("calm", "angry")


def test_a_method_is_a_function_with_a_docstring_and_a_line(tmp_path, monkeypatch):
    there = follow(monkeypatch, METHOD, {"METHODS": methods.METHODS}, Row=methods.Row, **vars(freezing))
    c = runs.config(method="norms_only")
    assert there["norms_only"].__doc__ and c.learning_rate == 60 * c.base_learning_rate
    result = modes.run(c, tmp_path / "run", QUIET)
    assert 0 < result["params"]["trainable"] < result["params"]["total"] / 10
    assert runs.plan("norms_only+llrd").trained == runs.plan("norms_only").trained


@pytest.fixture
def camembert(tmp_path, monkeypatch):
    """Return the folder of a small CamemBERT, a family that is added by the README's two rows."""
    real = {"FAMILIES": families.FAMILIES, "TABLES": tables.TABLES}
    follow(monkeypatch, MODEL, real, ROBERTA=tables.ROBERTA, dataclasses=dataclasses)
    folder = save(tmp_path / "camembert", "roberta", classifier("roberta"), model_type="camembert")
    save_tokenizer(folder)
    return folder


@pytest.mark.torch
def test_a_model_is_two_rows_and_trains_is_exported_and_agrees_with_pytorch(tmp_path, camembert):
    assert weights.load(str(camembert))[0].config.first_position == 2
    assert parity.check(str(camembert), 2e-5)
    c = runs.config(weights__source=str(camembert), precision="float32")
    modes.run(c, tmp_path / "run", QUIET)
    export.export(modes.load_trained(c, tmp_path / "run"), weights.begin(c), tmp_path / "run", "huggingface", tmp_path / "out")
    assert (tmp_path / "out" / "config.json").read_text().count("CamembertForSequenceClassification") == 1
    assert parity.check(str(tmp_path / "out"), 2e-5)


def test_what_pytorch_cannot_compute_is_one_line(tmp_path, camembert, monkeypatch):
    def fails(checkpoint):
        raise IndexError("index out of range in self\nsecond line")

    monkeypatch.setattr(parity, "load_pytorch", fails)
    with pytest.raises(InputError, match=r"camembert: PyTorch's transformers cannot compute this model \(index out of range in self\)$"):
        parity.compare(str(camembert))
