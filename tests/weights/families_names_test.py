"""Conversion by the tables of names of every family, in both directions, exactly."""

import jax
import numpy as np
import pytest

from research.errors import InputError
from research.models import families as model_families
from research.models.families import build
from research.models.heads import EncoderWithHead
from research.params.tree import flatten
from research.weights import padded_batch
from research.weights.name_map import KINDS, to_flax, to_torch
from research.weights.tables import TABLES
from tests.weights import families

every_family = pytest.mark.parametrize("name", families.CONFIGS)


def flax_params(name: str, kind: str | None, untied: bool = False, **changes) -> dict[str, np.ndarray]:
    """Return the parameters of the family's Flax model with a head of `kind`; all arrays differ."""
    config = families.CONFIGS[name] | changes
    pooler = any("encoder/pooler/kernel" in row.flax for row in TABLES[config["model_type"]].rows)
    encoder = build(config, pooler=pooler and kind in (None, "classifier"))
    batch, key = padded_batch([[0]], [[1]]), jax.random.key(0)
    if kind is None:
        shapes = {"encoder": jax.eval_shape(encoder.init, key, batch)["params"]}
    else:
        head = model_families.head(config, kind, families.CLASSES, untied)
        shapes = jax.eval_shape(EncoderWithHead(encoder, head).init, key, batch)["params"]
    return {path: families.tensor(path, leaf.shape) for path, leaf in flatten(shapes).items()}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def kinds(name: str) -> list[str | None]:
    return [None, *TABLES[families.CONFIGS[name]["model_type"]].heads]


@every_family
def test_flax_parameters_survive_a_round_trip_through_pytorch_names(name):
    table = TABLES[families.CONFIGS[name]["model_type"]]
    assert {"classifier", "tagger", families.language_model(name)} == set(kinds(name)) - {None} <= KINDS.keys()
    for kind in kinds(name):
        params = flax_params(name, kind, untied=kind == families.language_model(name))
        torch_tensors = to_torch(params, table, kind, prefix=kind is not None)
        assert all(array.flags["C_CONTIGUOUS"] for array in torch_tensors.values())
        assert same(to_flax(torch_tensors, table, kind), params)
        assert any(path.startswith("head/") for path in params) == (kind is not None)
        one, other = list(torch_tensors)[:2]
        swapped = {**torch_tensors, one: torch_tensors[other], other: torch_tensors[one]}
        assert not same(to_flax(swapped, table, kind), params)


@every_family
def test_pytorch_tensors_survive_a_round_trip_through_flax_names(name):
    torch_tensors, table = families.classifier(name), TABLES[families.CONFIGS[name]["model_type"]]
    params = to_flax(torch_tensors, table, "classifier")
    assert same(to_torch(params, table, "classifier"), torch_tensors)
    assert not any(path.startswith("head/") for path in to_flax(torch_tensors, table)), "a head without its kind"
    with pytest.raises(InputError, match="no name in `transformers` for head/"):
        to_torch(params, table)


@pytest.mark.parametrize("name", ["modernbert", "gpt2"])
def test_the_final_norm_belongs_to_the_layer_with_the_highest_number(name):
    count = {"modernbert": "num_hidden_layers", "gpt2": "n_layer"}[name]
    params, table = flax_params(name, None, **{count: 11}), TABLES[name]
    assert "encoder/layer_10/final_norm/scale" in params
    torch_tensors = to_torch(params, table, prefix=False)
    assert same(to_flax(torch_tensors, table), params)
    assert sum("final_norm" in path for path in params) == sum("ln_f" in path or "final_norm" in path for path in torch_tensors)
