"""Runs that start from the head of a checkpoint or an adapter: each output keeps the class that it was trained for."""

import json

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from research import weights
from research.errors import InputError
from research.experiment import modes
from research.tasks import catalog
from research.weights import peft
from research.weights import tiny as tiny_model
from tests import runs

TEXTS = ("fine", "a dull film", "the best of all", "why not", "no", "it was long", "quiet", "once more", "an odd one", "yes", "zero", "ok")
NUMBERS = tuple(map(str, range(12)))


def with_head(path, classes, **described):
    """Write a tiny model with large parameters, so that its outputs differ, and a random classifier; `described` goes into config.json."""
    tiny_model.write(path)
    tensors = {f"bert.{name}": tensor * (1 if "Norm" in name else 10) for name, tensor in load_file(path / "model.safetensors").items()}
    rng = np.random.default_rng(1)
    tensors |= {"classifier.weight": rng.normal(size=(classes, 32)), "classifier.bias": rng.normal(size=classes)}
    save_file({name: tensor.astype(np.float32) for name, tensor in tensors.items()}, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForSequenceClassification"]} | described))
    return path


def with_adapter(path, base, classes, **changes):
    """Write a random LoRA adapter in peft's format, on queries and values of the tiny model in `base`, with a classifier if `classes`."""
    rng, path = np.random.default_rng(2), path / "adapter"
    path.mkdir()
    delta_params = {
        f"layer_{i}/attention/{name}/{side}": rng.normal(size=shape).astype(np.float32)
        for i in (0, 1)
        for name in ("query", "value")
        for side, shape in (("a", (32, 8)), ("b", (8, 32)))
    }
    head = {"classifier/kernel": rng.normal(size=(32, classes)), "classifier/bias": rng.normal(size=classes)} if classes else {}
    options = {"rank": 8, "alpha": 16.0, "dropout": 0.0, "rank_stabilised": False}
    head = {name: array.astype(np.float32) for name, array in head.items()}
    peft.write(path, "lora", options, delta_params, head, weights.open(str(base)).table, None, str(base))
    config = json.loads((path / "adapter_config.json").read_text())
    (path / "adapter_config.json").write_text(json.dumps(config | changes))
    return path


def config(source, adapter="", head=False, **changes):
    changes |= {"weights__source": str(source), "weights__adapter": str(adapter), "weights__head": head, "precision": "float32"}
    return runs.config("custom", "smoke", method="lora" if adapter else "full", **changes)


def kernel(c, labels):
    """Return the kernel of the head that a run of `c` starts from."""
    return np.asarray(runs.build_model(c, labels).trainable["head"]["classifier"]["kernel"])


def test_a_checkpoint_with_numbered_classes_agrees_with_the_data_that_it_labelled(tmp_path):
    source = with_head(tmp_path / "model", 12, id2label={str(i): f"LABEL_{i}" for i in range(12)})
    encoder, params, tokenizer = weights.load(str(source))
    batch = weights.padded_batch(**tokenizer(list(TEXTS), padding=True, return_tensors="np"))
    pooled = np.asarray(jax.jit(encoder.apply)({"params": params["encoder"]}, batch).pooled)[:, 0]
    tensors = load_file(source / "model.safetensors")  # text i has class i
    solved = np.ascontiguousarray(np.linalg.lstsq(pooled, 9 * np.eye(12), rcond=None)[0].T, np.float32)
    save_file(tensors | {"classifier.weight": solved, "classifier.bias": np.zeros(12, np.float32)}, source / "model.safetensors")
    rows = "text\tlabel\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(TEXTS))
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text(rows)
    given = {"data__source": "files", "data__path": str(tmp_path), "data__train_examples": 0, "data__eval_examples": 0}
    c = config(source, head=True, **given)
    assert modes.evaluate_run(c, tmp_path / "none")["test"]["accuracy"] == 1.0
    (tmp_path / "in.txt").write_text("".join(f"{text}\n" for text in TEXTS))
    predictions = [row["prediction"] for row in modes.predict(c, tmp_path / "none", str(tmp_path / "in.txt"))]
    assert predictions == [f"LABEL_{number}" for number in range(12)], "without data, the class names are those of the checkpoint"


def test_the_head_of_an_adapter_has_the_class_names_of_its_base(tmp_path):
    base = with_head(tmp_path / "base", 2, id2label={"0": "positive", "1": "negative"})
    adapter = with_adapter(tmp_path, base, 2)
    one, other = (kernel(config(base, adapter), labels) for labels in (("positive", "negative"), ("negative", "positive")))
    assert np.array_equal(one, other[:, ::-1]) and not np.array_equal(one, other)
    assert weights.head_labels(config(base, adapter)) == ("positive", "negative")
    with pytest.raises(InputError, match="adapter: its head has the classes positive, negative, but the task has bad, good; leave out wei"):
        kernel(config(base, adapter), ("bad", "good"))
    (adapter / "config.json").write_text(json.dumps({"id2label": {"0": "good", "1": "bad"}}))
    assert np.array_equal(kernel(config(base, adapter), ("bad", "good")), one[:, ::-1]), "a config.json beside the adapter takes precedence"


def test_an_adapter_with_more_classes_than_its_base_has_numbered_classes(tmp_path):
    base = with_head(tmp_path / "base", 2, id2label={"0": "positive", "1": "negative"})
    adapter = with_adapter(tmp_path, base, 12)
    one, other = (kernel(config(base, adapter), labels) for labels in (NUMBERS, tuple(sorted(NUMBERS))))
    assert np.array_equal(one[:, [0, 1, 10, 11]], other[:, :4])
    with pytest.raises(InputError, match="the classes LABEL_0, LABEL_1, LABEL_2, but the task has a, b, c"):
        (tmp_path / "second").mkdir()
        kernel(config(base, with_adapter(tmp_path / "second", base, 3)), tuple("abc"))


@pytest.mark.parametrize(
    "described, classes, complaint",
    [
        ({"problem_type": "multi_label_classification"}, 3, "its head has problem_type 'multi_label_classification'"),
        ({}, 1, "its head has one output"),
        ({"id2label": {"0": "a", "1": "b"}}, 3, r"names 2 classes \(0: a, 1: b\), but the head has 3 outputs"),
        ({"id2label": ["a", "b", "c"]}, 3, "id2label in config.json is a list"),
        ({"architectures": ["BertForTokenClassification"]}, 3, "its head is for tokens, not for texts"),
    ],
)
def test_an_unusable_head_is_refused_only_if_it_is_requested(tmp_path, described, classes, complaint):
    source = with_head(tmp_path / "model", classes, **described)
    with pytest.raises(InputError, match=complaint):
        kernel(config(source, head=True), tuple("abc"))
    assert kernel(config(source), tuple("abc")).shape == (32, 3)
    if "problem_type" in described or isinstance(described.get("id2label"), list):
        with pytest.raises(InputError, match=complaint):
            kernel(config(source, with_adapter(tmp_path, source, classes)), tuple("abc"))


def test_an_adapter_without_a_head_can_be_trained_but_predicts_only_with_the_head_of_its_base(tmp_path):
    base = with_head(tmp_path / "base", 2, id2label={"0": "pos", "1": "neg"})
    adapter = with_adapter(tmp_path, base, 0)
    assert kernel(config(base, adapter), ("neg", "pos")).shape == (32, 2)
    with pytest.raises(InputError, match="this adapter has no head, and a new one has not been trained; run --mode=train first"):
        modes.load_trained(config(base, adapter), tmp_path / "none", catalog.get("imdb"))
    model = modes.load_trained(config(base, adapter, head=True), tmp_path / "none")
    base_kernel = load_file(base / "model.safetensors")["classifier.weight"].T
    assert model.task.classes == ("pos", "neg") and np.array_equal(model.trainable["head"]["classifier"]["kernel"], base_kernel)


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha_pattern": {"query": 32}},
        {"rank_pattern": {"layer.0": 4}},
        {"bias": "lora_only"},
        {"init_lora_weights": "pissa"},
        {"layer_replication": [[0, 2]]},
        {"trainable_token_indices": [1]},
        {"a_key_of_tomorrow": True},
    ],
)
def test_a_key_that_changes_the_adapter_and_is_not_supported_is_refused(tmp_path, changes):
    base = with_head(tmp_path / "base", 2)
    folder = with_adapter(tmp_path, base, 2, **changes)
    ((key, value),) = changes.items()
    with pytest.raises(InputError) as caught:
        peft.read(folder, weights.open(str(base)).table, 2)
    assert str(caught.value).startswith(f"{folder}: adapter_config.json has {key}={json.dumps(value)}, which is not supported; merge it")
    assert "\n" not in str(caught.value)


@pytest.mark.torch
def test_every_key_that_peft_writes_is_known_or_at_its_default():
    import peft as library

    kinds = (library.LoraConfig(), library.IA3Config(), library.PrefixTuningConfig(num_virtual_tokens=3))
    for key, value in {key: value for kind in kinds for key, value in kind.to_dict().items()}.items():
        assert not value or key in peft.IGNORED | peft.READ or value in peft.ALLOWED[key]
