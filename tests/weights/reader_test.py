import json

import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from flax.traverse_util import unflatten_dict
from safetensors.numpy import save_file

from research.errors import InputError
from research.weights import hub, reader
from tests.weights import tiny
from tests.weights.families import tokenizer_of


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def save_shards(folder, tensors, parts=2):
    names = sorted(tensors)
    index = {}
    for i in range(parts):
        file = f"model-{i + 1:05d}-of-{parts:05d}.safetensors"
        save_file({name: tensors[name] for name in names[i::parts]}, folder / file)
        index |= dict.fromkeys(names[i::parts], file)
    (folder / reader.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def save_flax(folder, tensors):
    """Save tensors as the Flax classes of `transformers` 4 saved a BERT: kernels [in, out], scales of norms, nested names."""
    flat = {}
    for name, tensor in tensors.items():
        *places, last = name.split(".")
        if last == "weight":
            last = "scale" if "LayerNorm" in name else "embedding" if "embeddings" in name else "kernel"
        flat[(*places, last)] = np.ascontiguousarray(tensor.T) if last == "kernel" else tensor
    (folder / reader.MSGPACK).write_bytes(msgpack_serialize(unflatten_dict(flat)))


def test_one_file_is_read_unchanged(tmp_path):
    assert same(reader.read_tensors(tiny.save(tmp_path, tiny.tensors())), tiny.tensors())
    assert not same(reader.read_tensors(tmp_path), tiny.tensors(seed=1))


def test_shards_and_flax_weights_give_the_same_tensors_as_one_file(tmp_path):
    for name, write in {"sharded": save_shards, "flax": save_flax}.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name, tiny.tensors(classes=3))
        assert same(reader.read_tensors(tmp_path / name), tiny.tensors(classes=3)), name


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32_without_further_change(tmp_path, dtype):
    low = {"a": np.linspace(-3, 3, 7).astype(dtype), "ids": np.arange(3)}
    save_file(low, tmp_path / "model.safetensors")
    tensors = reader.read_tensors(tmp_path)
    assert tensors["a"].dtype == np.float32 and tensors["ids"].dtype == np.int64
    assert np.array_equal(tensors["a"], low["a"].astype(np.float32))


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, 0.999])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, keep):
    path = tiny.save(tmp_path, tiny.tensors()) / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(InputError, match="model.safetensors: not a whole safetensors file"):
        reader.read_tensors(tmp_path)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.999])
def test_truncated_flax_weights_are_an_error_that_names_the_file(tmp_path, keep):
    save_flax(tmp_path, tiny.tensors())
    data = (tmp_path / reader.MSGPACK).read_bytes()
    (tmp_path / reader.MSGPACK).write_bytes(data[: int(keep * len(data))])
    with pytest.raises(InputError, match="flax_model.msgpack: not a whole msgpack file"):
        reader.read_tensors(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    save_shards(tmp_path, tiny.tensors())
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match="missing shards model-00002-of-00002.safetensors"):
        reader.read_tensors(tmp_path)


def test_a_shard_with_other_tensors_than_in_the_index_is_an_error(tmp_path):
    save_shards(tmp_path, tiny.tensors())
    save_file({"stranger": np.ones(2, np.float32)}, tmp_path / "model-00002-of-00002.safetensors")
    with pytest.raises(InputError, match="model-00002-of-00002.safetensors: .* disagree about "):
        reader.read_tensors(tmp_path)


@pytest.mark.parametrize("contents", ["{}", '{"weight_map": []}', "[]", "{"])
def test_an_index_without_a_map_is_an_error(tmp_path, contents):
    (tmp_path / reader.INDEX).write_text(contents)
    with pytest.raises(InputError, match=reader.INDEX):
        reader.read_tensors(tmp_path)


def test_missing_weights_list_the_files_that_are_there(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="no model.safetensors.*there are: config.json$"):
        reader.read_tensors(tmp_path)


def test_pickles_are_not_read_by_default(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(
        InputError, match="pickle, which is not read unless asked for: --config.weights.pickle=True .* convert it to model.safetensors$"
    ):
        reader.read_tensors(tmp_path)


@pytest.mark.parametrize("contents, complaint", [(None, "no config.json; there are: no files"), ("{", "not JSON"), ("[1]", "is a list")])
def test_a_config_that_cannot_be_read_is_an_error_that_names_it(tmp_path, contents, complaint):
    if contents is not None:
        (tmp_path / "config.json").write_text(contents)
    with pytest.raises(InputError, match=complaint) as caught:
        reader.read_config(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_tokenizer_neither_truncates_nor_pads_by_default():
    tokenizer = tokenizer_of(hub.find("minilm"), "bert", 30522)
    assert tokenizer.is_fast
    lengths = [len(encoding.ids) for encoding in tokenizer.backend_tokenizer.encode_batch(["hello", "hello " * 300])]
    assert lengths == [3, 302]


def test_the_tokenizer_gives_the_published_ids():
    tokenizer = tokenizer_of(hub.find("minilm"), "bert", 30522)
    encoded = tokenizer("Hello, World!", "naïve café")
    assert encoded["input_ids"] == [101, 7592, 1010, 2088, 999, 102, 15743, 7668, 102]
    assert encoded["token_type_ids"] == [0] * 6 + [1] * 3
    assert tokenizer.pad_token_id == 0


def test_a_vocabulary_alone_makes_the_same_tokenizer(tmp_path):
    folder = hub.find("minilm")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    texts = ["Transfer learning, naïvely: état de l'art?", "unbelievabletokens 你好"]
    assert tokenizer_of(tmp_path, "bert", 30522)(texts)["input_ids"] == tokenizer_of(folder, "bert", 30522)(texts)["input_ids"]


def test_a_folder_without_a_tokenizer_has_none(tmp_path):
    assert tokenizer_of(tmp_path, "bert", 10) is None


def test_a_tokenizer_of_another_format_is_an_error(tmp_path):
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(InputError, match="neither tokenizer.json nor vocab.txt"):
        tokenizer_of(tmp_path, "bert", 10)


def test_a_vocabulary_larger_than_the_embedding_is_an_error():
    with pytest.raises(InputError, match="ids up to 30521, but the config's vocab_size is 30521$"):
        tokenizer_of(hub.find("minilm"), "bert", 30521)
