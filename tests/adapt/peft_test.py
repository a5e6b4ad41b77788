"""Ours beside `peft`: as many parameters, and the same numbers.

`peft` counts what it trains, the classifier included, which it keeps as a module to save for a sequence classifier; ours is the
delta's part that trains and `head/classifier`. It saves nothing else: BERT's pooler stays frozen there and here.
"""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.adapt import adapted_model, methods
from research.adapt.lora import Dora, Lora
from research.models import families
from research.models.heads import Classifier
from research.params.tree import flatten, unflatten
from research.weights import name_map, tables
from tests import runs
from tests.weights import tiny

# The second: peft asks transformers by a name that transformers has given up.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")]
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
# BERT has two modules called output.dense; (IA)^3 scales what enters the feed-forward's, where peft's own default for BERT takes both.
FEED_FORWARD = r".*layer\.\d+\.output\.dense"
SAME = {
    "lora": ("LoraConfig", {"r": 8, "lora_alpha": 16, "target_modules": ["query", "value"]}),
    "dora": ("LoraConfig", {"r": 8, "lora_alpha": 16, "target_modules": ["query", "value"], "use_dora": True}),
    "vera": ("VeraConfig", {"r": 256, "target_modules": ["query", "value"]}),
    "ia3": ("IA3Config", {"target_modules": rf".*\.(key|value)|{FEED_FORWARD}", "feedforward_modules": FEED_FORWARD}),
    "prefix": ("PrefixTuningConfig", {"num_virtual_tokens": 20}),
}


@pytest.fixture(scope="module", autouse=True)
def torch():
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch


def theirs(config, name, options):
    """A classifier of `transformers` of two classes with what peft adds."""
    import peft
    import transformers

    model = transformers.BertForSequenceClassification(transformers.BertConfig(**config, num_labels=2))
    return peft.get_peft_model(model, getattr(peft, name)(task_type="SEQ_CLS", **options))


def sizes(method):
    """Name -> size of what trains of ours, on a BERT of MiniLM's shape."""
    encoder, c = families.build({"model_type": "bert", **MINILM}), runs.config(method=method)
    recipe, head, key = methods.recipe(encoder.stages, c), Classifier(classes=2, pooling="pooler"), jax.random.key(0)
    batch = weights.padded_batch(**tiny.inputs())

    def init():
        encoded, variables = encoder.init_with_output(key, batch)
        params = {"encoder": variables["params"], "head": head.init(key, encoded, batch)["params"]}
        (delta,) = recipe.deltas
        return params | {"delta": {delta.name: unflatten(delta.init(key, flatten(params["encoder"])))}}

    shapes = jax.eval_shape(init)
    plan = recipe.plan(shapes, "", c.no_decay)
    return {name: plan.entries[name].size for name in plan.trained}


@pytest.mark.parametrize("method", SAME)
def test_as_many_parameters_train(method):
    model, ours = theirs(MINILM, *SAME[method]), sizes(method)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    head = {name for name in trained if "classifier" in name}
    assert sum(trained[name] for name in head) == sum(n for name, n in ours.items() if name.startswith("head/")) == 384 * 2 + 2
    assert sum(trained.values()) == sum(ours.values())
    assert {name.split("/")[0] for name in ours} == {"delta", "head"}
    assert sum(trained.values()) != sum(sizes("prefix" if method == "lora" else "lora").values())


@pytest.fixture(params=["lora", "dora"])
def pair(request, torch):
    """(peft's classifier, our encoder and head, our parameters, our delta and its own), all with the same random weights."""
    options = {"r": 4, "lora_alpha": 12, "target_modules": ["query", "value"], "use_dora": request.param == "dora"}
    model = theirs({k: v for k, v in tiny.CONFIG.items() if k != "model_type"}, "LoraConfig", options).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.0 + 0.2 * torch.rand_like(parameter))
            else:
                parameter.normal_(float(name.endswith("LayerNorm.weight")), 0.2)
    tensors, own = {}, {}
    for name, parameter in model.named_parameters():
        if place := place_of(name):
            own[place] = parameter.detach().numpy().T
        else:
            name = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".modules_to_save.default", "")
            if ".original_module" not in name:
                tensors[name] = parameter.detach().numpy()
    ours = {name: jnp.asarray(array) for name, array in name_map.to_flax(tensors, tables.TABLES["bert"], "classifier").items()}
    cls = Dora if request.param == "dora" else Lora
    return model, ours, cls(rank=4, alpha=12.0, targets="attention/query,attention/value"), own


def place_of(name):
    """Our name of a tensor that peft added, or None."""
    pattern = r".*layer\.(\d+)\.attention\.self\.(\w+)\.lora_(A|B|magnitude_vector)\.default\.weight"
    found = re.fullmatch(pattern, name)
    leaves = {"A": "a", "B": "b", "magnitude_vector": "magnitude"}
    return found and f"layer_{found[1]}/attention/{found[2]}/{leaves[found[3]]}"


def test_forward_and_gradients_agree_with_the_same_weights(torch, pair):
    model, ours, delta, own = pair
    labels, inputs = np.array([1, 0, 1]), tiny.inputs()
    out = model(**{name: torch.tensor(array) for name, array in inputs.items()}, labels=torch.tensor(labels))
    out.loss.backward()
    encoder, batch = families.build(tiny.CONFIG), weights.padded_batch(**inputs)
    params = unflatten(ours)
    flat = flatten(params["encoder"])
    head = Classifier(classes=2, pooling="pooler")

    def logits(own):
        interceptors = delta.interceptors(own, flat, batch, None, encoder.precision)
        with nn.intercept_methods(adapted_model.at(interceptors)):
            encoded = encoder.apply({"params": params["encoder"]}, batch)
        return head.apply({"params": params["head"]}, encoded, batch)[:, 0]

    def loss(own):
        return -jnp.mean(jax.nn.log_softmax(logits(own))[jnp.arange(3), labels])

    wanted = {place: p.grad.numpy().T for name, p in model.named_parameters() if (place := place_of(name))}
    value, found = jax.jit(jax.value_and_grad(loss))(own)
    np.testing.assert_allclose(logits(own), out.logits.detach().numpy(), atol=1e-5, rtol=0)
    assert abs(float(value) - out.loss.item()) <= 1e-5
    assert found.keys() == wanted.keys() and len(found) == 3 * 2 * (3 if delta.name == "dora" else 2)
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, wanted[name], atol=1e-5, rtol=0, err_msg=name)
        assert np.abs(wanted[name]).max() > 1e-4, f"{name}: a gradient of zero compares nothing"
    off = own | {"layer_0/attention/query/a": 1.1 * own["layer_0/attention/query/a"]}
    assert np.abs(logits(off) - out.logits.detach().numpy()).max() > 1e-4
