import subprocess
import sys

import jax
import numpy as np
import pytest

from research import weights
from research.errors import InputError
from tests.weights import tiny


def test_load_returns_model_params_and_tokenizer_of_the_real_model():
    model, params, tokenizer = weights.load("minilm")
    assert params.keys() == {"encoder"}
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 22_713_216
    assert model.stages == ("embeddings", *(f"layer_{i}" for i in range(6)))
    texts = tokenizer(["one text", "another, longer one"], padding=True, return_tensors="np")
    out = model.apply({"params": params["encoder"]}, weights.padded_batch(**texts))
    assert out.last.shape == (*texts["input_ids"].shape, 384)
    assert len(out.stages) == 7 and out.pooled.shape == (2, 1, 384)


def test_the_classifier_of_the_checkpoint_is_the_head(tmp_path):
    torch_tensors = tiny.tensors(classes=3)
    _, params, tokenizer = weights.load(str(tiny.save(tmp_path, torch_tensors)))
    assert np.array_equal(params["head"]["classifier"]["kernel"], torch_tensors["classifier.weight"].T)
    assert tokenizer is None


def test_there_is_a_pooler_only_where_the_checkpoint_has_one(tmp_path):
    for pooler in (True, False):
        folder = tiny.save(tmp_path / str(pooler), tiny.tensors(pooler=pooler))
        model, params, _ = weights.load(str(folder))
        out = model.apply({"params": params["encoder"]}, weights.padded_batch(**tiny.inputs()))
        assert ("pooler" in params["encoder"]) == (out.pooled is not None) == pooler


def without(name):
    return {key: tensor for key, tensor in tiny.tensors(classes=3).items() if key != name}


@pytest.mark.parametrize(
    "tensors, complaint",
    [
        (without("bert.encoder.layer.1.output.dense.bias"), "1 missing: encoder/layer_1/mlp/down/bias$"),
        (without("classifier.bias"), "1 missing: head/classifier/bias$"),
        (without("bert.pooler.dense.bias"), "1 missing: encoder/pooler/bias$"),
        (without("") | {"bert.encoder.layer.3.output.dense.bias": np.ones(32, np.float32)}, "1 left over: encoder/layer_3/mlp/down/bias$"),
        (without("") | {"bert.pooler.dense.bias": np.ones(31, np.float32)}, r"encoder/pooler/bias \(file \(31,\), model \(32,\)\)$"),
        (without("") | {"bert.stranger": np.ones(1, np.float32)}, "model do not fit: 1 left over: bert.stranger$"),
    ],
)
def test_a_checkpoint_that_does_not_fit_its_config_is_an_error(tmp_path, tensors, complaint):
    with pytest.raises(InputError, match=complaint):
        weights.load(str(tiny.save(tmp_path, tensors)))


def test_a_vocabulary_of_another_size_is_an_error(tmp_path):
    folder = tiny.save(tmp_path, tiny.tensors(), tiny.CONFIG | {"vocab_size": 49})
    with pytest.raises(InputError, match=r"1 misshapen: encoder/embeddings/word/embedding \(file \(50, 32\), model \(49, 32\)\)"):
        weights.load(str(folder))


@pytest.mark.parametrize(
    "change, complaint", [({"model_type": "bertt"}, "did you mean 'bert'"), ({"hidden_act": "gelo"}, "did you mean 'gelu'")]
)
def test_a_model_that_is_not_known_is_an_error(tmp_path, change, complaint):
    with pytest.raises(InputError, match=complaint):
        weights.load(str(tiny.save(tmp_path, tiny.tensors(), tiny.CONFIG | change)))


def test_open_records_its_source_and_a_given_digest_takes_precedence_over_the_pinned_one(tmp_path):
    folder = tiny.save(tmp_path, tiny.tensors())
    opened = weights.open(str(folder))
    assert (opened.source, opened.folder, opened.config) == (str(folder), folder, tiny.CONFIG)
    assert weights.open(str(folder), opened.sha256) == opened
    for source in (str(folder), "minilm"):
        with pytest.raises(InputError, match=f"expected {'f' * 64}"):
            weights.load(source, sha256="f" * 64)


def test_precision_reaches_the_model(tmp_path):
    folder, batch = str(tiny.save(tmp_path, tiny.tensors())), weights.padded_batch(**tiny.inputs())
    outs = []
    for precision in ("float32", "bfloat16"):
        model, params, _ = weights.load(folder, precision=precision)
        outs.append(model.apply({"params": params["encoder"]}, batch).last)
    assert 1e-4 < np.abs(outs[0] - outs[1]).max() < 0.2
    with pytest.raises(InputError, match="did you mean 'bfloat16'"):
        weights.load(folder, precision="bfloat")


def test_a_padded_batch_is_packed_rows_of_one_example():
    ids, mask, types = np.array([[5, 6, 7], [8, 9, 0]]), np.array([[1, 1, 1], [1, 1, 0]]), np.array([[0, 0, 1], [0, 1, 0]])
    batch = weights.padded_batch(ids, mask, types)
    expected = {
        "tokens": ids,
        "positions": [[0, 1, 2], [0, 1, 2]],
        "segments": mask,
        "types": types,
        "example_starts": [[0], [0]],
        "weights": [[1], [1]],
        "examples": [[0], [1]],
    }
    assert batch.keys() == expected.keys()
    assert all(np.array_equal(batch[name], value) for name, value in expected.items())
    assert {name: array.dtype.name for name, array in batch.items()} == dict.fromkeys(batch, "int32") | {"weights": "float32"}
    assert not weights.padded_batch(ids, mask)["types"].any()


def test_arrays_of_different_shapes_are_an_error():
    two = np.ones((2, 3), int)
    with pytest.raises(InputError, match=r"input_ids \(2, 3\), attention_mask \(2, 4\), token_type_ids \(2, 3\)"):
        weights.padded_batch(two, np.ones((2, 4)))
    with pytest.raises(InputError, match=r"token_type_ids \(1, 3\)"):
        weights.padded_batch(two, two, two[:1])
    with pytest.raises(InputError, match=r"input_ids \(3,\)"):
        weights.padded_batch(two[0], two[0])
    with pytest.raises(InputError, match="padding=True"):
        weights.padded_batch([[1, 2], [3]], [[1, 1], [1]])


def test_loading_imports_no_other_framework():
    code = "import sys; from research import weights; weights.load('minilm'); print({'torch', 'tensorflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "set()", done.stderr
