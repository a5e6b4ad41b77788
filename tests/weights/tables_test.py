import numpy as np
import pytest

from research.errors import InputError
from research.params.tree import unflatten
from research.weights import hub, reader
from research.weights.graft import graft
from research.weights.name_map import to_ours, to_theirs
from research.weights.tables import BERT
from tests.weights import tiny


def test_each_place_gets_the_tensor_of_its_name_and_layout():
    theirs = tiny.tensors(classes=3)
    ours = to_ours(theirs, BERT, "classifier")
    assert len(ours) == len(theirs)
    assert np.array_equal(ours["encoder/layer_2/attention/key/kernel"], theirs["bert.encoder.layer.2.attention.self.key.weight"].T)
    assert np.array_equal(ours["encoder/layer_1/mlp/up/kernel"], theirs["bert.encoder.layer.1.intermediate.dense.weight"].T)
    assert np.array_equal(ours["encoder/layer_0/attention/norm/scale"], theirs["bert.encoder.layer.0.attention.output.LayerNorm.weight"])
    assert np.array_equal(ours["encoder/layer_0/mlp/norm/bias"], theirs["bert.encoder.layer.0.output.LayerNorm.bias"])
    assert np.array_equal(ours["encoder/embeddings/word/embedding"], theirs["bert.embeddings.word_embeddings.weight"])
    assert np.array_equal(ours["head/classifier/kernel"], theirs["classifier.weight"].T)


def test_the_table_is_total_for_the_real_file():
    theirs = reader.read_tensors(hub.find("minilm"))
    ours = to_ours(theirs, BERT)
    assert len(ours) == 103 == len(theirs) - 1, "all but the position_ids buffer"
    assert sum(tensor.size for tensor in ours.values()) == 22_713_216


def test_every_row_can_be_read_in_the_other_direction():
    for theirs, kind in ((tiny.tensors(), None), (tiny.tensors(classes=3), "classifier")):
        back = to_theirs(to_ours(theirs, BERT, kind), BERT, kind, prefix=kind is not None)
        assert back.keys() == theirs.keys()
        assert all(np.array_equal(back[name], theirs[name]) for name in theirs)
    with pytest.raises(InputError, match="no name in `transformers` for head/classifier/bias, head/classifier/kernel$"):
        to_theirs(to_ours(theirs, BERT, "classifier"), BERT)


def test_the_norms_of_old_files_are_known():
    theirs = tiny.tensors(classes=2)
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in theirs.items()}
    assert old.keys() != theirs.keys()
    a, b = to_ours(old, BERT), to_ours(theirs, BERT)
    assert a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_tensor_that_is_neither_mapped_nor_ignored_is_left_over_in_the_one_error_that_lists_all():
    known = to_ours(tiny.tensors(), BERT)
    strangers = dict.fromkeys(("encoder.layer.0.crossattention.weight", "encoder.layerx.1"), np.ones(1))
    lost = {name: tensor for name, tensor in to_ours(tiny.tensors() | strangers, BERT).items() if name != "encoder/pooler/bias"}
    with pytest.raises(InputError) as error:
        graft(unflatten(known), lost)
    assert "1 missing: encoder/pooler/bias; 2 left over: encoder.layer.0.crossattention.weight, encoder.layerx.1" in str(error.value)
    graft(unflatten(known), known)


def test_a_long_list_is_cut_and_counted():
    with pytest.raises(InputError, match=r"10 left over: x0, x1, x2, x3 and 6 more$"):
        graft({}, to_ours({f"x{i}": np.ones(1) for i in range(10)}, BERT))


@pytest.mark.parametrize(
    "name", ["embeddings.position_ids", "bert.embeddings.position_ids", "cls.predictions.bias", "cls.seq_relationship.weight"]
)
def test_what_is_ignored_is_left_out_and_nothing_like_it(name):
    assert to_ours({name: np.ones(1)}, BERT) == {}
    with pytest.raises(InputError, match=f"1 left over: x{name}"):
        graft({}, to_ours({f"x{name}": np.ones(1)}, BERT))


def test_two_tensors_for_one_place_are_an_error():
    both = {"embeddings.LayerNorm.weight": np.ones(2), "embeddings.LayerNorm.gamma": np.ones(2)}
    with pytest.raises(InputError, match="LayerNorm.gamma: encoder/embeddings/norm/scale is there under another name too"):
        to_ours(both, BERT)


def test_integers_for_a_parameter_are_an_error():
    with pytest.raises(InputError, match="pooler.dense.bias: int8, not floating point"):
        to_ours({"pooler.dense.bias": np.ones(2, np.int8)}, BERT)
