"""Test how `pooling=auto` is resolved, and that a run keeps the resolved value."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from research import weights
from research.adapt import summary
from research.errors import InputError
from research.experiment import modes
from research.experiment import workdir as workdirs
from research.weights import hub, sentence
from research.weights import tiny as tiny_model
from tests import runs
from tests.weights import tiny

OLD = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
MODULES = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
QUIET = Console(quiet=True)


def sentences(path, pooling, modules=MODULES):
    """Make the folder one of sentence-transformers, with these contents of its pooling's config."""
    if pooling is not None:
        listed = [{"path": where, "type": f"sentence_transformers.models.{kind}"} for kind, where in modules]
        (path / "modules.json").write_text(json.dumps(listed))
        for kind, where in modules:
            if kind == "Pooling":
                (path / where).mkdir()
                (path / where / "config.json").write_text(json.dumps(pooling))
    return path


@pytest.fixture
def source(tmp_path):
    """Make a folder of the tiny model with the files of sentence-transformers."""

    def make(pooling=None, modules=MODULES):
        path = tmp_path / "model"
        tiny_model.write(path)
        return str(sentences(path, pooling, modules))

    return make


def model_of(**changes):
    return runs.build_model(runs.config(**changes), ("neg", "pos"))


def chosen(**changes) -> tuple[str, str]:
    """Return the pooling of a run and its line in the plan."""
    model = model_of(**changes)
    (line,) = [line for line in summary.summary(model).splitlines() if line.startswith("pooling:")]
    assert model.head.pooling == model.config.pooling
    return model.config.pooling, line


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        (OLD, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "max", "embedding_dimension": 32}, "max"),
        ({"pooling_mode": ["cls"]}, "first"),
        ({"pooling_mode": "lasttoken", "pooling_mode_mean_tokens": True}, "last"),
        ({"word_embedding_dimension": 32}, "mean"),
    ],
)
def test_the_folder_of_the_weights_decides_in_both_spellings(source, config, wanted):
    assert chosen(weights__source=source(config)) == (wanted, f"pooling: {wanted} (1_Pooling/config.json in the folder of the weights)")


def test_modules_json_says_where_the_pooling_is(source):
    where = source({"pooling_mode": "cls"}, (("Transformer", ""), ("Pooling", "3_Pooling")))
    assert chosen(weights__source=where) == ("first", "pooling: first (3_Pooling/config.json in the folder of the weights)")


@pytest.mark.parametrize("config", [{"pooling_mode": "weightedmean"}, {"pooling_mode": ["cls", "mean"]}])
def test_a_pooling_that_does_not_exist_here_is_said(source, config):
    pooling, line = chosen(weights__source=source(config))
    assert pooling == "pooler" and "as 1_Pooling/config.json says, does not exist here" in line and "mean" in line


def test_without_a_word_of_the_folder_it_is_the_family_s_own():
    assert chosen() == ("pooler", "pooling: pooler (the family's own)")
    assert chosen(model="textcnn", arg="model=textcnn,smoke")[0] == "pooler"


def test_the_config_comes_before_the_method_and_the_method_before_the_folder(source):
    where = source({"pooling_mode": "cls"})
    assert chosen(weights__source=where, method="linear_probe") == ("mean", "pooling: mean (method=linear_probe wants it)")
    assert chosen(weights__source=where, method="lora+scalar_mix")[0] == "mean"
    assert chosen(weights__source=where, method="linear_probe", pooling="max") == ("max", "pooling: max (config.pooling)")


def test_minilm_reads_the_mean_pretrained_or_not():
    assert sentence.read(hub.find("minilm")).pooling == "mean"
    common = {"arg": "model=minilm,demo", "max_length": 16}
    assert chosen(**common)[0] == chosen(**common, weights__source="scratch")[0] == "mean"


@pytest.mark.parametrize("broken", ["[]x", '{"a": 1}', '[{"type": "Pooling"}]'])
def test_a_damaged_modules_json_is_one_line(source, broken):
    where = source(OLD)
    (runs.Path(where) / "modules.json").write_text(broken)
    with pytest.raises(InputError, match="modules.json: not a list of modules"):
        model_of(weights__source=where)


def classifier(path):
    tensors = tiny_model._tensors()
    head = {"classifier.weight": tensors["pooler.dense.weight"][:2], "classifier.bias": tensors["pooler.dense.bias"][:2]}
    tiny_model.write(path)
    (path / "config.json").write_text(json.dumps(tiny_model.CONFIG | {"architectures": ["BertForSequenceClassification"]}))
    tiny.save_file({**{f"bert.{name}": x for name, x in tensors.items()}, **head}, path / "model.safetensors")
    return str(path)


def test_a_loaded_head_keeps_its_pooling_whatever_the_method_wants(tmp_path):
    loaded = {"weights__source": classifier(tmp_path / "model"), "weights__head": True}
    for method in ("full", "linear_probe"):
        pooling, line = chosen(**loaded, method=method)
        assert pooling == "pooler" and line.endswith("(the loaded head was trained with the family's own)")
    assert chosen(**loaded, pooling="pooler")[0] == "pooler"
    with pytest.raises(InputError, match="^pooling=mean: the head that weights.head loads was trained with pooling=pooler; leave out"):
        model_of(**loaded, pooling="mean")
    with pytest.raises(InputError, match="^weights.head: the loaded head reads the last states, but the method reads others"):
        model_of(**loaded, method="scalar_mix")


def test_a_pooler_that_the_checkpoint_lacks_is_new_and_the_plan_says_so(tmp_path):
    tensors = {name: x for name, x in tiny_model._tensors().items() if not name.startswith("pooler")}
    tiny_model.write(tmp_path / "model")
    tiny.save_file(tensors, tmp_path / "model" / "model.safetensors")
    model = model_of(weights__source=str(tmp_path / "model"))
    assert "encoder/pooler begins random: the checkpoint has none" in summary.summary(model)
    other = model_of(weights__source=str(tmp_path / "model"), seed=1)
    assert (model.trainable["encoder"]["pooler"]["kernel"] != other.trainable["encoder"]["pooler"]["kernel"]).any()
    assert "begins random" not in summary.summary(model_of())


def test_what_the_folder_says_and_the_run_does_otherwise_is_in_the_plan(source, tmp_path):
    where = runs.Path(source(OLD))
    (where / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 16, "do_lower_case": False}))
    (where / "config.json").write_text(json.dumps(tiny_model.CONFIG | {"hidden_dropout_prob": 0.0}))
    plan = summary.summary(model_of(weights__source=str(where)))
    assert "max_length: 32; the model was trained on texts of at most 16 tokens (max_seq_length)\n" in plan
    assert "dropout: 0.1 (config.dropout); the checkpoint's own: hidden_dropout_prob 0\n" in plan
    silent = summary.summary(model_of(weights__source=str(where), max_length=16, dropout=0.0))
    assert "max_length:" not in silent and re.findall("own: .*", silent) == ["own: attention_probs_dropout_prob 0.1"]


def test_a_run_keeps_what_auto_was_and_its_id_is_of_what_was_asked(source, tmp_path):
    c = runs.config(weights__source=source(OLD))
    result = modes.run(c, tmp_path / "run", QUIET)
    saved = json.loads((tmp_path / "run" / "config.json").read_text())
    assert c.pooling == "auto" and saved["pooling"] == result["config"]["pooling"] == "mean"
    assert result["config_hash"] == workdirs.config_hash(c) and c.pooling == "auto"
    (runs.Path(c.weights.source) / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "max"}))
    assert model_of(weights__source=c.weights.source).config.pooling == "max"
    assert modes.load_trained(c, tmp_path / "run").config.pooling == "mean", "the run's own config says what it used"
    (tmp_path / "run" / "result.json").unlink()
    again = modes.run(c, tmp_path / "run", QUIET)
    assert again["config"]["pooling"] == "mean" and again["config_hash"] == result["config_hash"]
    assert again["params"]["sha256"] == result["params"]["sha256"]
    with pytest.raises(InputError, match="pooling is 'mean' there and 'max' now"):
        modes.run(runs.config(weights__source=c.weights.source, pooling="max"), tmp_path / "run", QUIET)


@pytest.mark.parametrize("lower", [True, False])
def test_texts_are_put_into_lower_case_where_the_folder_asks_for_it(source, lower):
    folder = Path(source(OLD))
    described = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(described | {"do_lower_case": False}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 64, "do_lower_case": lower}))
    tokenizer = weights.open(str(folder)).tokenizer()
    same = tokenizer("a QUIET film")["input_ids"] == tokenizer("a quiet film")["input_ids"]
    assert same == lower
