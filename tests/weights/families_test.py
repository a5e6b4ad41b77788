"""Comparison of every family with PyTorch's `transformers`: states, gradients, logits of all heads, and round trips of files."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from research import weights
from research.params.tree import flatten, unflatten
from research.weights import reader
from research.weights.name_map import to_flax, to_torch
from tests.weights import families
from tests.weights.families import CONFIGS
from tests.weights.reader_test import save_flax

pytestmark = pytest.mark.torch
LABELS = np.array([2, 0, 1])


@pytest.fixture(scope="module", autouse=True)
def torch():
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch


@dataclasses.dataclass
class Pair:
    """A family's classifier in PyTorch and in Flax.

    `out` and `gradient` are PyTorch's. `run(params)` returns Flax's ((loss, (stages, logits)), gradient).
    """

    name: str
    folder: Path
    out: Any
    gradient: dict[str, np.ndarray]
    params: dict
    run: Any

    @property
    def real(self) -> np.ndarray:
        return families.inputs(self.name)["attention_mask"] == 1

    def differences(self, stages, logits) -> tuple[float, float]:
        """Return the largest differences from PyTorch's states, without padding, and from its logits."""
        wanted = [states.detach().numpy() for states in self.out.hidden_states]
        largest = [np.abs(flax - torch)[self.real].max() for flax, torch in zip(stages, wanted, strict=True)]
        return max(largest), np.abs(logits - self.out.logits.detach().numpy()).max()


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request, torch, tmp_path_factory) -> Pair:
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    model = families.torch_model(name, "classifier")
    model.save_pretrained(folder)
    out = model(**families.as_torch(families.inputs(name)), labels=torch.tensor(LABELS), output_hidden_states=True)
    out.loss.backward()
    flax_model, params, _ = weights.load(str(folder), head=True)

    def loss(params):
        batch = weights.padded_batch(**families.inputs(name))
        encoded = flax_model.encoder.apply({"params": params["encoder"]}, batch)
        logits = flax_model.head.apply({"params": params["head"]}, encoded, batch)[:, 0]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(3), LABELS]), (encoded.stages, logits)

    gradient = {parameter: value.grad.numpy() for parameter, value in model.named_parameters()}
    # Not jitted: single operations are compiled once for all families, which takes a fraction of the time.
    return Pair(name, folder, out, gradient, params, jax.value_and_grad(loss, has_aux=True))


def test_the_states_of_every_layer_and_the_logits_agree(pair):
    (_, (stages, logits)), _ = pair.run(pair.params)
    assert len(stages) == len(pair.out.hidden_states)
    assert max(pair.differences(stages, logits)) <= 2e-5


def test_the_gradient_of_every_parameter_agrees(pair):
    (loss, _), gradient = pair.run(pair.params)
    flax_gradient = flatten(gradient)
    torch_gradient = to_flax(pair.gradient, weights.open(str(pair.folder)).table, "classifier")
    assert abs(float(loss) - pair.out.loss.item()) <= 1e-5
    assert flax_gradient.keys() == torch_gradient.keys()
    for name, array in torch_gradient.items():
        largest = np.abs(array).max()
        # Softmax is invariant to adding a constant to all scores of a query: without relative distances, the key bias has gradient zero.
        assert largest > 1e-4 or name.endswith("key/bias"), f"{name}: a gradient of zero compares nothing"
        np.testing.assert_allclose(flax_gradient[name], array, atol=1e-4 * largest if largest > 1e-4 else 1e-6, rtol=0, err_msg=name)


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "electra", "deberta-v3"])
def test_the_decoder_bias_of_an_untied_language_model_is_used(torch, tmp_path, name):
    # `transformers` 5 unties the bias together with the word embeddings; the file also holds the other bias, which is unused.
    model = families.torch_model(name, "masked_lm", tie_word_embeddings=False)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = model(**families.as_torch(families.inputs(name))).logits.numpy()
    flax_model, params, _ = weights.load(str(tmp_path), head=True)
    batch, real = weights.padded_batch(**families.inputs(name)), families.inputs(name)["attention_mask"] == 1
    assert np.abs(flax_model.apply({"params": params}, batch) - wanted)[real].max() <= 2e-5


def test_other_weights_are_noticed(pair):
    other = {name: families.tensor(name, array.shape, seed=1) for name, array in reader.read_tensors(pair.folder).items()}
    tree = unflatten(to_flax(other, weights.open(str(pair.folder)).table, "classifier"))
    (_, seen), _ = pair.run(tree)
    assert min(pair.differences(*seen)) > 0.1
    (_, seen), _ = pair.run(jax.tree.map(lambda x: 1.01 * x, pair.params))
    assert min(pair.differences(*seen)) > 1e-3


HEADS = [(name, kind, {}) for name in CONFIGS for kind in (None, "tagger", families.language_model(name))]
HEADS += [(name, families.language_model(name), {"tie_word_embeddings": False}) for name in ("distilbert", "modernbert", "gpt2")]


@pytest.fixture(scope="module", params=HEADS, ids=lambda case: "-".join([case[0], case[1] or "bare", *case[2]]))
def headed(request, torch, tmp_path_factory):
    """Return (family, kind, folder, PyTorch output) of a model with another head or none."""
    (name, kind, changes), folder = request.param, tmp_path_factory.mktemp("headed")
    model = families.torch_model(name, kind, **changes)
    model.save_pretrained(folder)
    with torch.no_grad():
        return name, kind, folder, model(**families.as_torch(families.inputs(name)))


def test_the_logits_of_taggers_and_language_models_agree(headed):
    name, kind, folder, out = headed
    batch, real = weights.padded_batch(**families.inputs(name)), families.inputs(name)["attention_mask"] == 1
    model, params, _ = weights.load(str(folder), head=kind is not None)
    if kind is None:
        output, wanted = model.apply({"params": params["encoder"]}, batch).last, out.last_hidden_state
    else:
        output, wanted = model.apply({"params": params}, batch), out.logits
    assert np.abs(output - wanted.numpy())[real].max() <= 2e-5
    shifted = dict(batch, tokens=np.roll(batch["tokens"], 1, axis=1))
    other = model.apply({"params": params["encoder"]}, shifted).last if kind is None else model.apply({"params": params}, shifted)
    assert np.abs(other - wanted.numpy())[real].max() > 0.1


def check_round_trip(folder, kind):
    checkpoint, file = weights.open(str(folder)), load_file(folder / "model.safetensors")
    assert checkpoint.kind == kind
    back = to_torch(checkpoint.tensors(), checkpoint.table, kind, prefix=kind is not None)
    assert back.keys() == file.keys()
    assert all(back[name].dtype == file[name].dtype and np.array_equal(back[name], file[name]) for name in file)


def test_a_file_is_exactly_the_same_after_a_round_trip(headed):
    check_round_trip(headed[2], headed[1])


def test_a_classifier_is_exactly_the_same_after_a_round_trip(pair):
    check_round_trip(pair.folder, "classifier")


WRONG = [
    ("roberta", {"pad_token_id": 0}),  # the first position
    ("distilbert", {"activation": "relu"}),
    ("electra", {"layer_norm_eps": 0.01}),
    ("albert", {"hidden_act": "relu"}),
    ("modernbert", {"local_attention": 6}),
    ("modernbert", {"layer_types": ["full_attention"] * 4}),
    ("modernbert", {"rope_parameters": {"full_attention": {"rope_theta": 1000.0}, "sliding_attention": {"rope_theta": 10000.0}}}),
    ("deberta-v3", {"max_relative_positions": 16}),  # the sizes of the distance buckets
    ("deberta-v3", {"pos_att_type": ["c2p"]}),
    ("deberta-v2", {"position_buckets": 16, "max_relative_positions": 48}),
    ("gpt2", {"activation_function": "gelu"}),
    ("gpt2", {"n_head": 2}),
]


@pytest.mark.parametrize(("name", "change"), WRONG, ids=lambda value: value if isinstance(value, str) else next(iter(value)))
def test_a_wrong_option_is_noticed(torch, tmp_path, name, change):
    model, arrays = families.torch_model(name, None), families.inputs(name)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        wanted = model(**families.as_torch(arrays)).last_hidden_state.numpy()

    def difference() -> float:
        flax_model, params, _ = weights.load(str(tmp_path))
        output = flax_model.apply({"params": params["encoder"]}, weights.padded_batch(**arrays)).last
        return np.abs(output - wanted)[arrays["attention_mask"] == 1].max()

    assert difference() <= 2e-5
    config = reader.read_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    assert difference() > 2e-4


@pytest.mark.parametrize("name", ["modernbert", "gpt2"])
def test_shards_of_pytorch_give_the_parameters_of_one_file(tmp_path, name):
    model = families.torch_model(name, "classifier")
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    assert len(reader.weight_files(tmp_path / "many")) > 2
    check_same(tmp_path / "one", tmp_path / "many")


@pytest.mark.parametrize("name", ["roberta", "distilbert", "gpt2"])
def test_flax_weights_give_the_parameters_of_safetensors(tmp_path, name):
    families.torch_model(name, "classifier").save_pretrained(tmp_path / "one")
    (tmp_path / "flax").mkdir()
    (tmp_path / "flax" / "config.json").write_bytes((tmp_path / "one" / "config.json").read_bytes())
    save_flax(tmp_path / "flax", reader.read_tensors(tmp_path / "one"))
    check_same(tmp_path / "one", tmp_path / "flax")


def check_same(folder: Path, other: Path) -> None:
    one, two = (flatten(weights.load(str(path), head=True)[1]) for path in (folder, other))
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
