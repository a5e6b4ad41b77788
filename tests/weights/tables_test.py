import numpy as np
import pytest

from research.errors import InputError
from research.params.tree import unflatten
from research.weights import hub, name_map, reader
from research.weights.graft import graft
from research.weights.name_map import to_flax, to_torch
from research.weights.tables import BERT
from tests.weights import tiny


def test_each_parameter_gets_the_tensor_of_its_name_and_layout():
    torch_tensors = tiny.tensors(classes=3)
    flax_tensors = to_flax(torch_tensors, BERT, "classifier")
    assert len(flax_tensors) == len(torch_tensors)
    assert np.array_equal(
        flax_tensors["encoder/layer_2/attention/key/kernel"], torch_tensors["bert.encoder.layer.2.attention.self.key.weight"].T
    )
    assert np.array_equal(flax_tensors["encoder/layer_1/mlp/up/kernel"], torch_tensors["bert.encoder.layer.1.intermediate.dense.weight"].T)
    assert np.array_equal(
        flax_tensors["encoder/layer_0/attention/norm/scale"], torch_tensors["bert.encoder.layer.0.attention.output.LayerNorm.weight"]
    )
    assert np.array_equal(flax_tensors["encoder/layer_0/mlp/norm/bias"], torch_tensors["bert.encoder.layer.0.output.LayerNorm.bias"])
    assert np.array_equal(flax_tensors["encoder/embeddings/word/embedding"], torch_tensors["bert.embeddings.word_embeddings.weight"])
    assert np.array_equal(flax_tensors["head/classifier/kernel"], torch_tensors["classifier.weight"].T)


def test_the_table_covers_all_parameters_of_the_real_file():
    torch_tensors = reader.read_tensors(hub.find("minilm"))
    flax_tensors = to_flax(torch_tensors, BERT)
    assert len(flax_tensors) == 103 == len(torch_tensors) - 1, "all but the position_ids buffer"
    assert sum(tensor.size for tensor in flax_tensors.values()) == 22_713_216


def test_a_round_trip_through_flax_names_changes_nothing():
    for torch_tensors, kind in ((tiny.tensors(), None), (tiny.tensors(classes=3), "classifier")):
        back = to_torch(to_flax(torch_tensors, BERT, kind), BERT, kind, prefix=kind is not None)
        assert back.keys() == torch_tensors.keys()
        assert all(np.array_equal(back[name], torch_tensors[name]) for name in torch_tensors)
    with pytest.raises(InputError, match="no name in `transformers` for head/classifier/bias, head/classifier/kernel$"):
        to_torch(to_flax(torch_tensors, BERT, "classifier"), BERT)


def test_old_names_of_norms_are_read():
    torch_tensors = tiny.tensors(classes=2)
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in torch_tensors.items()
    }
    assert old.keys() != torch_tensors.keys()
    a, b = to_flax(old, BERT), to_flax(torch_tensors, BERT)
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_tensor_that_is_neither_mapped_nor_ignored_is_left_over_in_the_one_error_that_lists_all():
    known = to_flax(tiny.tensors(), BERT)
    strangers = dict.fromkeys(("encoder.layer.0.crossattention.weight", "encoder.layerx.1"), np.ones(1))
    lost = {name: tensor for name, tensor in to_flax(tiny.tensors() | strangers, BERT).items() if name != "encoder/pooler/bias"}
    with pytest.raises(InputError) as error:
        graft(unflatten(known), lost)
    assert "1 missing: encoder/pooler/bias; 2 left over: encoder.layer.0.crossattention.weight, encoder.layerx.1" in str(error.value)
    graft(unflatten(known), known)


def test_a_long_list_is_shortened_and_counted():
    with pytest.raises(InputError, match=r"10 left over: x0, x1, x2, x3 and 6 more$"):
        graft({}, to_flax({f"x{i}": np.ones(1) for i in range(10)}, BERT))


@pytest.mark.parametrize(
    "name", ["embeddings.position_ids", "bert.embeddings.position_ids", "cls.predictions.bias", "cls.seq_relationship.weight"]
)
def test_only_ignored_tensors_are_left_out(name):
    assert to_flax({name: np.ones(1)}, BERT) == {}
    with pytest.raises(InputError, match=f"1 left over: x{name}"):
        graft({}, to_flax({f"x{name}": np.ones(1)}, BERT))


def test_two_tensors_for_one_parameter_are_an_error():
    both = {"embeddings.LayerNorm.weight": np.ones(2), "embeddings.LayerNorm.gamma": np.ones(2)}
    with pytest.raises(InputError, match="LayerNorm.gamma: encoder/embeddings/norm/scale is there under another name too"):
        to_flax(both, BERT)


def test_integers_for_a_parameter_are_an_error():
    with pytest.raises(InputError, match="pooler.dense.bias: int8, not floating point"):
        to_flax({"pooler.dense.bias": np.ones(2, np.int8)}, BERT)


def test_a_pattern_gives_the_number_of_a_layer():
    assert name_map.number_of("layer_11/kernel", "layer_*/kernel") == "11" and name_map.number_of("pooler", "pooler") == ""
    assert name_map.number_of("layer_x/kernel", "layer_*/kernel") is None and name_map.number_of("pooler", "pool.r") is None
    assert name_map.rename("layer_2/kernel", "layer_*/kernel", "layer.*.weight") == "layer.2.weight"
