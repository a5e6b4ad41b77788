"""Test that other libraries, and this project, read exported models with the same numbers."""

import dataclasses
import json

import numpy as np
import pytest
from rich.console import Console

from research import weights
from research.adapt import summary
from research.data import pipeline
from research.data.examples import Examples
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import export, modes
from research.params.tree import flatten
from research.weights import huggingface
from research.weights import tiny as tiny_model
from tests import runs
from tests.adapt.small import noisy
from tests.weights import families, tiny

TEXTS = ("fine", "a dull film", "the best of all the films that were ever shown in that town", "why not")
QUIET = Console(quiet=True)


def trained(folder, method="full", **changes):
    """Train a smoke run and return its config and workdir. Few steps at a high rate move every trained part away from its start."""
    c = runs.config(method=method, precision="float32", learning_rate=0.02, total_steps=8, **changes)
    modes.run(c, folder, QUIET)
    return c, folder


def exported(c, workdir, output, form="huggingface"):
    export.export(modes.load_trained(c, workdir), weights.begin(c), workdir, form, output)
    return output


def logits(c, workdir, texts=TEXTS) -> np.ndarray:
    """Return the logits [n, C] of the run's model in float32."""
    model = modes.load_trained(c, workdir)
    batches = pipeline.batches(model, Examples(tuple(map(str, range(len(texts)))), tuple((text,) for text in texts), ()), 1)
    gathered = np.zeros((len(texts), len(model.task.classes)), np.float32)
    for batch in batches.epoch(0):
        there = batch["weights"] > 0
        gathered[batch["examples"][there]] = np.asarray(model.logits(model.trainable, model.frozen, batch))[there]
    return gathered


def torch_of(array):
    import torch

    return torch.tensor(np.asarray(array), dtype=torch.long)


def torch_logits(model, tokenizer, texts=TEXTS, max_length=32) -> np.ndarray:
    import torch

    arrays = tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**arrays).logits.numpy()


@pytest.mark.torch
@pytest.mark.parametrize("method", ["full", "lora", "ia3+dora"])
def test_transformers_loads_what_was_trained_with_deltas_merged_and_labels_named(tmp_path, method):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    c, workdir = trained(tmp_path / "run", method, **({"ia3__outputs": "attention/key"} if "ia3" in method else {}))
    folder = exported(c, workdir, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    exported_logits = torch_logits(model, AutoTokenizer.from_pretrained(folder))
    np.testing.assert_allclose(exported_logits, logits(c, workdir), atol=1e-4, rtol=0)
    assert model.config.id2label == {0: "neg", 1: "pos"} and model.config.label2id["pos"] == 1
    base = AutoModelForSequenceClassification.from_pretrained(weights.begin(c).folder)
    assert np.abs(torch_logits(base, AutoTokenizer.from_pretrained(folder)) - exported_logits).max() > 1e-2, "nothing was trained"


@pytest.mark.torch
@pytest.mark.parametrize("name", families.CONFIGS)
def test_every_family_is_what_transformers_takes_it_for(tmp_path, name):
    from transformers import AutoModelForSequenceClassification

    source = families.save(tmp_path / "base", name, families.classifier(name))
    families.save_tokenizer(source)
    c = runs.config(precision="float32", weights__source=str(source))
    model = runs.build_model(c, ("neg", "pos"))
    model = dataclasses.replace(model, trainable=noisy(model.trainable, 0.1))
    (tmp_path / "out").mkdir()
    params = {leaf: np.asarray(array) for leaf, array in flatten(model.trainable).items()}
    export._write_model(tmp_path / "out", model, weights.begin(c), params)
    torch_model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    batch, given = export._batch(model), {}
    for flax_name, torch_name in (("tokens", "input_ids"), ("segments", "attention_mask")):
        given[torch_name] = torch_of(batch[flax_name])
    np.testing.assert_allclose(torch_model(**given).logits.detach().numpy(), export._logits(model, batch)[:, 0], atol=1e-4, rtol=0)
    assert torch_model.config.id2label == {0: "neg", 1: "pos"}
    assert np.ptp(export._logits(model, batch)) > 1e-3


@pytest.mark.torch
def test_gpt2_reads_the_same_last_token_as_transformers_whatever_ends_a_text(tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source = families.save(tmp_path / "base", "gpt2", families.classifier("gpt2"), pad_token_id=None, eos_token_id=3)  # 3 is [SEP]
    families.save_tokenizer(source)
    model = runs.build_model(runs.config(precision="float32", weights__source=str(source)), ("neg", "pos"))
    model = dataclasses.replace(model, trainable=noisy(model.trainable, 0.1))
    (tmp_path / "out").mkdir()
    huggingface.copy_tokenizer(source, tmp_path / "out", model.tokenizer, model.head.style.padding)
    export._write_model(
        tmp_path / "out", model, weights.begin(model.config), {n: np.asarray(a) for n, a in flatten(model.trainable).items()}
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    texts = ["fine", "fine[SEP]", "a [SEP] in the middle", "two [SEP][SEP]", "[SEP]", "[PAD]"]
    given = tokenizer(texts, padding=True, return_tensors="np", add_special_tokens=False)
    flax_logits = export._logits(model, weights.padded_batch(given["input_ids"], given["attention_mask"]))[:, 0]
    other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    arrays = {name: torch_of(given[name]) for name in ("input_ids", "attention_mask")}
    np.testing.assert_allclose(other(**arrays).logits.detach().numpy(), flax_logits, atol=1e-4, rtol=0)
    assert (other.config.pad_token_id, tokenizer.pad_token) == (3, "[SEP]")


def test_what_autotokenizer_would_read_otherwise_is_refused_and_contradictions_are_not_handed_on(tmp_path):
    tiny_model.write(tmp_path / "base")
    path = tmp_path / "base" / "tokenizer_config.json"
    described = json.loads(path.read_text()) | {"do_lower_case": False, "truncation_side": "left"}
    path.write_text(json.dumps(described))  # its tokenizer.json makes letters small
    tokenizer = weights.load(str(tmp_path / "base"))[2]
    (tmp_path / "out").mkdir()
    huggingface.copy_tokenizer(tmp_path / "base", tmp_path / "out", tokenizer)
    huggingface.check_tokenizer(tmp_path / "out", tokenizer, ["A FILM", "a film [SEP]"])
    rules = json.loads((tmp_path / "out" / "tokenizer.json").read_text())
    assert rules["normalizer"]["lowercase"] is False
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["truncation_side"] == "right"
    huggingface.copy_tokenizer(tmp_path / "base", tmp_path / "out", tokenizer, truncation="tail")
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["truncation_side"] == "left"
    (tmp_path / "out" / "tokenizer_config.json").write_text(json.dumps(described | {"do_lower_case": True}))
    with pytest.raises(InputError, match="AutoTokenizer encodes 'A FILM' as .* with the files written, but the run as .*; it is not kept"):
        huggingface.check_tokenizer(tmp_path / "out", tokenizer, ["a film", "A FILM"])


@pytest.mark.torch
@pytest.mark.parametrize("method", ["lora", "dora", "ia3", "prefix"])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_peft_loads_the_delta_and_the_head_on_the_pytorch_base(tmp_path, method):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    c, workdir = trained(tmp_path / "run", method)
    folder = exported(c, workdir, tmp_path / "out", "peft")
    base = AutoModelForSequenceClassification.from_pretrained(weights.begin(c).folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = torch_logits(base, tokenizer)
    adapted = torch_logits(PeftModel.from_pretrained(base, folder), tokenizer)
    np.testing.assert_allclose(adapted, logits(c, workdir), atol=1e-4, rtol=0)
    assert np.abs(adapted - before).max() > 1e-2, "nothing was trained"


@pytest.mark.torch
@pytest.mark.parametrize("method", ["lora", "prefix"])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_an_adapter_that_peft_wrote_is_where_we_begin(tmp_path, method):
    import peft
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    c = runs.config(method=method, precision="float32", weights__adapter=str(tmp_path), lora__rank=4, lora__alpha=12.0, prefix__tokens=3)
    base = AutoModelForSequenceClassification.from_pretrained(weights.begin(c).folder)
    given = {"lora": {"r": 4, "lora_alpha": 12, "target_modules": ["query", "value"]}, "prefix": {"num_virtual_tokens": 3}}[method]
    kind = {"lora": peft.LoraConfig, "prefix": peft.PrefixTuningConfig}[method]
    model = peft.get_peft_model(base, kind(task_type="SEQ_CLS", **given))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(weights.begin(c).folder)
    np.testing.assert_allclose(logits(c, tmp_path / "none"), torch_logits(model, tokenizer), atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="use --config.method=" + method):
        runs.build_model(runs.config(method="dora", weights__adapter=str(tmp_path)), ("neg", "pos"))
    if method == "lora":
        with pytest.raises(InputError, match="was trained with lora.rank=4; use --config.lora.rank=4$"):
            runs.build_model(runs.config(method="lora", weights__adapter=str(tmp_path)), ("neg", "pos"))


def test_an_exported_model_is_evaluated_and_trained_further_with_its_own_head(tmp_path):
    c, workdir = trained(tmp_path / "run")
    folder = exported(c, workdir, tmp_path / "out")
    again = runs.config(precision="float32", weights__source=str(folder), weights__head=True)
    wanted = json.loads((workdir / "result.json").read_text())["metrics"]
    assert modes.evaluate_run(again, tmp_path / "none") == wanted
    np.testing.assert_allclose(logits(again, tmp_path / "none"), logits(c, workdir), atol=1e-5, rtol=0)
    assert modes.run(again, tmp_path / "further", QUIET)["weights"]["source"] == str(folder)
    fresh = runs.config(precision="float32", weights__source=str(folder))
    head = runs.build_model(fresh, ("neg", "pos")).trainable["head"]["classifier"]["kernel"]
    assert np.abs(np.asarray(head)).max() < 0.1, "without weights.head the head is new"


def test_the_classes_of_a_head_are_found_by_name(tmp_path):
    c, workdir = trained(tmp_path / "run")
    folder = exported(c, workdir, tmp_path / "out")
    again = runs.config(precision="float32", weights__source=str(folder), weights__head=True)
    one, other = (runs.build_model(again, labels).trainable["head"]["classifier"]["kernel"] for labels in (("neg", "pos"), ("Pos", "NEG")))
    assert np.array_equal(one, other[:, ::-1]) and not np.array_equal(one, other)
    with pytest.raises(InputError, match="its head has the classes neg, pos, but the task has good, bad; leave out weights.head"):
        runs.build_model(again, ("good", "bad"))
    with pytest.raises(InputError, match="it has no classifier; leave out weights.head"):
        runs.build_model(runs.config(weights__head=True), ("neg", "pos"))


def test_a_delta_goes_round_by_the_format_of_peft(tmp_path):
    for method in ("lora", "ia3", "prefix"):
        c, workdir = trained(tmp_path / method, method)
        folder = exported(c, workdir, tmp_path / f"{method} out", "peft")
        again = runs.config(method=method, precision="float32", weights__adapter=str(folder))
        before, after = modes.load_trained(c, workdir).trainable, modes.load_trained(again, tmp_path / "none").trainable
        for one, other in zip(*(experiments.jax.tree.leaves(tree) for tree in (before, after)), strict=True):
            assert np.array_equal(one, other)


def test_the_card_has_the_numbers_and_the_tokenizer_goes_along(tmp_path):
    c, workdir = trained(tmp_path / "run")
    folder = exported(c, workdir, tmp_path / "out")
    result, card = json.loads((workdir / "result.json").read_text()), (folder / "README.md").read_text()
    for wanted in (f"{result['metrics']['test']['accuracy']:.4f}", result["params"]["sha256"], "neg, pos", "method=full"):
        assert wanted in card
    assert weights.load(str(folder))[2](TEXTS[0]).data == modes.load_trained(c, workdir).tokenizer(TEXTS[0]).data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "run"], "nothing half-written is left"


@pytest.mark.parametrize(
    "method, form, changes, complaint",
    [
        ("houlsby", "huggingface", {}, "houlsby cannot be merged"),
        ("houlsby", "peft", {}, "method=houlsby: peft has no such adapter"),
        ("full", "peft", {}, "peft's format is for one delta and a head, but encoder/.* trains too; use --format=huggingface"),
        ("linear_probe", "huggingface", {}, "pooling=mean: .* use --format=sentence-transformers, or train with --config.pooling=pooler"),
        (
            "lora",
            "peft",
            {"pooling": "first"},
            "pooling=first: .* use --format=sentence-transformers, or train with --config.pooling=pooler",
        ),
        ("full", "sentence-transformers", {}, "pooling=pooler: .* has no place for the family's own; use --format=huggingface"),
        ("scalar_mix", None, {}, "method=scalar_mix reads several states: no format has a place"),
        ("full", "safetensors", {}, "--format=safetensors is not known"),
    ],
)
def test_what_a_format_has_no_place_for_is_refused_and_leaves_nothing(tmp_path, method, form, changes, complaint):
    c, workdir = trained(tmp_path / "run", method, **changes)
    with pytest.raises(InputError, match=complaint):
        exported(c, workdir, tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.torch
@pytest.mark.parametrize("method, pooling", [("full", "max"), ("lora", "first"), ("linear_probe", "auto")])
def test_sentence_transformers_gives_our_logits(tmp_path, method, pooling):
    from sentence_transformers import SentenceTransformer

    c, workdir = trained(tmp_path / "run", method, pooling=pooling)
    folder = exported(c, workdir, tmp_path / "out", None)
    texts = (*TEXTS, "a long text that is cut at the length of the run and not at that of the model, " * 2)
    model = SentenceTransformer(str(folder), device="cpu")
    encoded, flax_logits = model.encode(list(texts)), logits(c, workdir, texts)
    assert encoded.shape == (len(texts), 2) and np.ptp(flax_logits) > 0.05
    np.testing.assert_allclose(encoded, flax_logits, atol=1e-4, rtol=0)
    assert model.max_seq_length == c.max_length and json.loads((folder / "config.json").read_text())["id2label"] == {"0": "neg", "1": "pos"}


def test_a_folder_of_sentence_transformers_is_read_back_with_its_head_and_its_pooling(tmp_path):
    c, workdir = trained(tmp_path / "run", pooling="max")
    folder = exported(c, workdir, tmp_path / "out", None)
    again = runs.config(precision="float32", weights__source=str(folder), weights__head=True)
    wanted = json.loads((workdir / "result.json").read_text())["metrics"]
    assert modes.evaluate_run(again, tmp_path / "none") == wanted
    np.testing.assert_allclose(logits(again, tmp_path / "none"), logits(c, workdir), atol=1e-5, rtol=0)
    model = runs.build_model(again, ("Pos", "neg"))
    assert model.config.pooling == "max" and "the loaded head was trained with max, as 1_Pooling/config.json says" in summary.summary(model)
    straight = runs.build_model(again, ("neg", "pos")).trainable["head"]["classifier"]["kernel"]
    assert np.array_equal(straight[:, ::-1], model.trainable["head"]["classifier"]["kernel"]), "classes are found by name"
    with pytest.raises(InputError, match="pooling=mean: the head that weights.head loads was trained with pooling=max; leave out"):
        runs.build_model(runs.config(weights__source=str(folder), weights__head=True, pooling="mean"), ("neg", "pos"))
    fresh = runs.build_model(runs.config(weights__source=str(folder)), ("neg", "pos"))
    assert fresh.config.pooling == "max" and "2_Dense: not loaded" in summary.summary(fresh)
    dense = folder / "2_Dense" / "config.json"
    dense.write_text(dense.read_text().replace("linear.Identity", "activation.Tanh"))
    with pytest.raises(InputError, match="it has no classifier; leave out weights.head"):
        runs.build_model(again, ("neg", "pos"))


@pytest.mark.parametrize(
    "method, changes, line",
    [
        ("full", {}, None),
        ("linear_probe", {}, "--format=sentence-transformers; transformers' bert classifiers have no place for pooling=mean"),
        ("feature_bilstm", {}, "none; no format has a place for a classifier that reads several states, as method=feature_bilstm does"),
        ("houlsby", {}, "none; houlsby cannot be merged into the encoder"),
        ("prefix", {}, "--format=peft; prefix cannot be merged into the encoder"),
        (
            "prefix",
            {"pooling": "mean"},
            "none; prefix cannot be merged into the encoder; with --config.pooling=pooler, --format=peft has a place",
        ),
    ],
)
def test_the_plan_says_where_a_run_cannot_be_exported_as_the_familys_classifier(method, changes, line):
    plan = summary.summary(experiments.plan_of(runs.config(method=method, **changes)).model).splitlines()
    assert [x.removeprefix("export: ") for x in plan if x.startswith("export:")] == ([line] if line else [])


CLASSES = {2: ("ham", "spam"), 6: ("ABBR", "DESC", "ENTY", "HUM", "LOC", "NUM")}


@pytest.fixture(scope="module", params=CLASSES)
def of_classes(request, tmp_path_factory):
    """Return a finished run with LoRA on so many classes, for each pooling."""
    folder = tmp_path_factory.mktemp("classes")
    labels = CLASSES[request.param]
    for split in ("train", "dev", "test"):
        rows = "".join(f"text {'ab' * (i % 7)} {label}\t{label}\n" for i, label in enumerate(labels * 4))
        (folder / f"{split}.tsv").write_text(f"text\tlabel\n{rows}")
    tiny_model.write(folder / "base")
    data = {"task": "custom", "data__source": "files", "data__path": str(folder), "data__train_examples": 0, "data__eval_examples": 0}
    data |= {"weights__source": str(folder / "base")}
    return labels, {pooling: trained(folder / pooling, "lora", pooling=pooling, **data) for pooling in ("pooler", "mean")}


@pytest.mark.torch
@pytest.mark.parametrize("form", ["huggingface", "peft", "sentence-transformers"])
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_the_code_of_the_card_prints_our_classes(of_classes, form, tmp_path, monkeypatch, capsys):
    labels, poolings = of_classes
    c, workdir = poolings["mean" if form.startswith("sentence") else "pooler"]
    card = (exported(c, workdir, tmp_path / "out", form) / "README.md").read_text()
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(card.split("```python\n")[1].split("```")[0], {})
    wanted = [labels[i] for i in logits(c, workdir, ("A text.", "Another text.")).argmax(-1)]
    assert capsys.readouterr().out.strip() == str(wanted)


def test_an_export_needs_a_finished_run_and_a_new_folder(tmp_path):
    c, workdir = trained(tmp_path / "run")
    with pytest.raises(InputError, match="--output=.*run is there already"):
        exported(c, workdir, workdir)
    (workdir / "result.json").unlink()
    with pytest.raises(InputError, match="no result.json there; finish the run"):
        exported(c, workdir, tmp_path / "out")


def test_logits_that_differ_from_what_was_trained_are_noticed(tmp_path, monkeypatch):
    c, workdir = trained(tmp_path / "run")
    original = export._merged
    monkeypatch.setattr(export, "_merged", lambda *args: {name: 1.1 * leaf for name, leaf in original(*args).items()})
    with pytest.raises(InputError, match="gives other logits .* so it is not kept"):
        exported(c, workdir, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "change, complaint",
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA' is not supported; did you mean 'LORA'"),
        (None, "no adapter_config.json"),
    ],
)
def test_an_adapter_that_cannot_be_read_is_an_error(tmp_path, change, complaint):
    c, workdir = trained(tmp_path / "run", "lora")
    folder = exported(c, workdir, tmp_path / "out", "peft")
    path = folder / "adapter_config.json"
    if change is None:
        path.unlink()
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match=complaint):
        runs.build_model(runs.config(method="lora", weights__adapter=str(folder)), ("neg", "pos"))


@pytest.mark.torch
def test_a_pickle_is_read_where_it_is_asked_for_and_only_for_tensors(tmp_path):
    import torch

    tensors = tiny.tensors(classes=3)
    folder = tiny.save(tmp_path, tensors)
    _, wanted, _ = weights.load(str(folder))
    (folder / "model.safetensors").unlink()
    torch.save({name: torch.tensor(array) for name, array in tensors.items()}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="a pickle, which is not read unless asked for"):
        weights.load(str(folder))
    _, params, _ = weights.load(str(folder), pickle=True)
    assert np.array_equal(params["encoder"]["pooler"]["kernel"], wanted["encoder"]["pooler"]["kernel"])
    torch.save({"run": json.loads}, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="not a whole file of tensors"):
        weights.load(str(folder), pickle=True)


@pytest.mark.torch
@pytest.mark.data
@pytest.mark.slow
def test_a_real_model_trained_on_sst2_says_the_same_in_pytorch(tmp_path):
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    changes = {
        "pooling": "pooler",
        "data__path": str(runs.DATA / "sst2"),
        "data__train_examples": 1024,
        "data__eval_examples": 64,
        "total_epochs": 2.0,
    }
    c = runs.config("sst2", "model=minilm,data=files", precision="float32", base_learning_rate=2e-4, **changes)
    modes.run(c, tmp_path / "run", QUIET)
    folder = exported(c, tmp_path / "run", tmp_path / "out")
    texts = [
        text
        for (text,) in experiments.load_data(runs.config("sst2", "model=minilm,data=files", data__path=str(runs.DATA / "sst2")))
        .splits["test"]
        .texts[:200]
    ]
    flax_logits = logits(c, tmp_path / "run", texts)
    reloaded = torch_logits(AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder), texts, 64)
    assert np.abs(flax_logits - reloaded).max() <= 1e-4
    assert np.array_equal(flax_logits.argmax(1), reloaded.argmax(1)) and len(set(flax_logits.argmax(1))) == 2
