"""Folders that cannot be loaded: each error is one line that says what is wrong and where."""

import json

import pytest

from research import weights
from research.errors import InputError
from research.weights.tables import TABLES
from tests.weights import families
from tests.weights.reader_test import save_shards


def saved(folder, name, **changes):
    return families.save(folder, name, families.classifier(name), **changes)


def complaint(folder) -> str:
    """Return the one-line message of the error on loading the folder."""
    with pytest.raises(InputError) as caught:
        weights.load(str(folder), head=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_family_that_is_not_known_names_the_nearest_or_all(tmp_path):
    assert complaint(saved(tmp_path, "bert", model_type="rooberta")).endswith("did you mean 'roberta'?")
    assert complaint(saved(tmp_path, "bert", model_type="mamba2")).endswith(f"known: {', '.join(sorted(TABLES))}")
    assert "model_type None" in complaint(saved(tmp_path, "bert", model_type=None))


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("roberta", {"num_hidden_layers": 2}, ["16 left over: encoder/layer_2/"]),
        ("xlm-roberta", {"type_vocab_size": 2}, ["1 misshapen: encoder/embeddings/type/embedding (file (1, 24), model (2, 24))"]),
        ("distilbert", {"n_layers": 4}, ["16 missing: encoder/layer_3/"]),
        ("electra", {"embedding_size": 24}, ["2 left over: encoder/embeddings/projection/", "misshapen"]),
        ("electra-plain", {"embedding_size": 16}, ["2 missing: encoder/embeddings/projection/", "misshapen"]),
        ("albert-groups", {"num_hidden_groups": 1}, ["16 left over: encoder/layer_1/"]),
        ("albert", {"num_hidden_groups": 4}, ["num_hidden_groups 4, but there are 3 layers"]),
        ("modernbert", {"num_hidden_layers": 3}, ["left over: encoder/layer_3/"]),
        ("modernbert", {"num_hidden_layers": 5}, ["missing: encoder/layer_4/", "1 left over: encoder/layer_3/final_norm/scale"]),
        ("modernbert", {"norm_bias": True}, ["10 missing: ", "/norm/bias"]),
        ("modernbert-biased", {"attention_bias": False}, ["16 left over: encoder/layer_0/attention/", "attention/query/bias"]),
        ("deberta-v3", {"position_buckets": 16}, ["1 misshapen: encoder/embeddings/distance (file (16, 24), model (32, 24))"]),
        ("deberta-v3", {"share_att_key": False}, ["12 missing: encoder/layer_0/attention/pos_key/"]),
        ("deberta-v2", {"norm_rel_ebd": "layer_norm"}, ["2 missing: encoder/embeddings/distance_norm/"]),
        ("deberta-v2", {"relative_attention": False}, ["relative_attention is not true"]),
        ("gpt2", {"n_inner": 40}, ["9 misshapen: encoder/layer_0/mlp/", "mlp/up/kernel (file (24, 96), model (24, 40))"]),
        ("gpt2", {"n_positions": 64}, ["1 misshapen: encoder/embeddings/position/embedding (file (48, 24), model (64, 24))"]),
        ("gpt2", {"n_head": 5}, ["hidden_size 24 does not divide by 5 attention heads"]),
    ],
)
def test_a_config_that_disagrees_with_the_tensors_says_where(tmp_path, name, changes, words):
    weights.load(str(saved(tmp_path, name)), head=True)
    message = complaint(saved(tmp_path, name, **changes))
    assert all(word in message for word in words), message


@pytest.mark.parametrize("name", families.CONFIGS)
def test_a_tokenizer_larger_than_the_embedding_table_is_an_error(tmp_path, name):
    small = {tensor: [100 if size == 120 else size for size in shape] for tensor, shape in families.layout(name).items()}
    families.save(tmp_path, name, families.tensors(small), vocab_size=100)
    weights.load(str(tmp_path), head=True)
    families.save_tokenizer(tmp_path)
    assert complaint(tmp_path).endswith("the tokenizer has ids up to 108, but the config's vocab_size is 100")


@pytest.mark.parametrize("name", ["albert", "modernbert", "deberta-v3", "gpt2"])
def test_an_incomplete_folder_is_an_error(tmp_path, name):
    config, folder = json.dumps(families.CONFIGS[name] | {"num_labels": families.CLASSES}), tmp_path
    assert "no config.json; there are: no files" in complaint(folder)
    (folder / "config.json").write_text(config[:-10])
    assert "config.json: not JSON" in complaint(folder)
    (folder / "config.json").write_text(config)
    assert "no model.safetensors" in complaint(folder)
    save_shards(folder, families.classifier(name), parts=3)
    weights.load(str(folder), head=True)
    shard = folder / "model-00002-of-00003.safetensors"
    contents = shard.read_bytes()
    for size in (0, 20, len(contents) // 2, len(contents) - 1):
        shard.write_bytes(contents[:size])
        assert f"{shard}: not a whole safetensors file" in complaint(folder)
    shard.unlink()
    assert "missing shards model-00002-of-00003.safetensors" in complaint(folder)
