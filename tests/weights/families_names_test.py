"""The tables of names of every family, read in both directions, to the bit."""

import jax
import numpy as np
import pytest

from research.errors import InputError
from research.models import families as model_families
from research.models.families import build
from research.models.heads import Whole
from research.params.tree import flatten
from research.weights import padded_batch
from research.weights.name_map import KINDS, to_ours, to_theirs
from research.weights.tables import TABLES
from tests.weights import families

every_family = pytest.mark.parametrize("name", families.CONFIGS)


def ours(name: str, kind: str | None, own_words: bool = False, **changes) -> dict[str, np.ndarray]:
    """Parameters of our model of the family with a head of the kind: each is another array."""
    config = families.CONFIGS[name] | changes
    pooler = any("encoder/pooler/kernel" in row.ours for row in TABLES[config["model_type"]].rows)
    encoder = build(config, pooler=pooler and kind in (None, "classifier"))
    batch, key = padded_batch([[0]], [[1]]), jax.random.key(0)
    if kind is None:
        shapes = {"encoder": jax.eval_shape(encoder.init, key, batch)["params"]}
    else:
        head = model_families.head(config, kind, families.CLASSES, own_words)
        shapes = jax.eval_shape(Whole(encoder, head).init, key, batch)["params"]
    return {path: families.tensor(path, leaf.shape) for path, leaf in flatten(shapes).items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def kinds(name: str) -> list[str | None]:
    return [None, *TABLES[families.CONFIGS[name]["model_type"]].heads]


@every_family
def test_ours_written_and_read_again_are_the_same(name):
    table = TABLES[families.CONFIGS[name]["model_type"]]
    assert {"classifier", "tagger", families.language_model(name)} == set(kinds(name)) - {None} <= KINDS.keys()
    for kind in kinds(name):
        mine = ours(name, kind, own_words=kind == families.language_model(name))
        theirs = to_theirs(mine, table, kind, prefix=kind is not None)
        assert all(array.flags["C_CONTIGUOUS"] for array in theirs.values())
        assert same(to_ours(theirs, table, kind), mine)
        assert any(path.startswith("head/") for path in mine) == (kind is not None)
        one, other = list(theirs)[:2]
        assert not same(to_ours({**theirs, one: theirs[other], other: theirs[one]}, table, kind), mine)


@every_family
def test_theirs_read_and_written_again_are_the_same(name):
    theirs, table = families.classifier(name), TABLES[families.CONFIGS[name]["model_type"]]
    mine = to_ours(theirs, table, "classifier")
    assert same(to_theirs(mine, table, "classifier"), theirs)
    assert not any(path.startswith("head/") for path in to_ours(theirs, table)), "a head that is not asked for"
    with pytest.raises(InputError, match="no name in `transformers` for head/"):
        to_theirs(mine, table)


@pytest.mark.parametrize("name", ["modernbert", "gpt2"])
def test_the_norm_after_the_last_layer_is_of_the_last_by_number(name):
    count = {"modernbert": "num_hidden_layers", "gpt2": "n_layer"}[name]
    mine, table = ours(name, None, **{count: 11}), TABLES[name]
    assert "encoder/layer_10/final_norm/scale" in mine
    theirs = to_theirs(mine, table, prefix=False)
    assert same(to_ours(theirs, table), mine)
    assert sum("final_norm" in path for path in mine) == sum("ln_f" in path or "final_norm" in path for path in theirs)
