"""Comparison with `peft`: as many trainable parameters, and the same outputs and gradients.

For a sequence classifier, `peft` trains the adapter and the classifier, which is one of its modules to save. Here the trainable parameters
of the delta and `head/classifier` train. BERT's pooler stays frozen in both.
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

# peft calls transformers by a name that is deprecated there.
pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")]
MINILM = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
# BERT has two modules called output.dense. (IA)^3 scales the input of the feed-forward's only, where peft's default for BERT takes both.
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


def torch_model(config, name, options):
    """Return a `transformers` classifier of two classes with an adapter of peft."""
    import peft
    import transformers

    model = transformers.BertForSequenceClassification(transformers.BertConfig(**config, num_labels=2))
    return peft.get_peft_model(model, getattr(peft, name)(task_type="SEQ_CLS", **options))


def sizes(method):
    """Return name -> size of the trainable parameters of a method, on a BERT of MiniLM's shape."""
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
def test_as_many_parameters_train_as_in_peft(method):
    model, flax_sizes = torch_model(MINILM, *SAME[method]), sizes(method)
    trained = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    head = {name for name in trained if "classifier" in name}
    assert sum(trained[name] for name in head) == sum(n for name, n in flax_sizes.items() if name.startswith("head/")) == 384 * 2 + 2
    assert sum(trained.values()) == sum(flax_sizes.values())
    assert {name.split("/")[0] for name in flax_sizes} == {"delta", "head"}
    assert sum(trained.values()) != sum(sizes("prefix" if method == "lora" else "lora").values())


@pytest.fixture(params=["lora", "dora"])
def pair(request, torch):
    """Return (peft's classifier, flat Flax parameters, delta, parameters of the delta), all with the same random weights."""
    options = {"r": 4, "lora_alpha": 12, "target_modules": ["query", "value"], "use_dora": request.param == "dora"}
    model = torch_model({k: v for k, v in tiny.CONFIG.items() if k != "model_type"}, "LoraConfig", options).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "magnitude" in name:
                parameter.mul_(1.0 + 0.2 * torch.rand_like(parameter))
            else:
                parameter.normal_(float(name.endswith("LayerNorm.weight")), 0.2)
    tensors, delta_params = {}, {}
    for name, parameter in model.named_parameters():
        if flax_name := flax_name_of(name):
            delta_params[flax_name] = parameter.detach().numpy().T
        else:
            name = name.removeprefix("base_model.model.").replace(".base_layer", "").replace(".modules_to_save.default", "")
            if ".original_module" not in name:
                tensors[name] = parameter.detach().numpy()
    flax_params = {name: jnp.asarray(array) for name, array in name_map.to_flax(tensors, tables.TABLES["bert"], "classifier").items()}
    cls = Dora if request.param == "dora" else Lora
    return model, flax_params, cls(rank=4, alpha=12.0, targets="attention/query,attention/value"), delta_params


def flax_name_of(name):
    """Return the Flax name of a tensor that peft added, or None."""
    pattern = r".*layer\.(\d+)\.attention\.self\.(\w+)\.lora_(A|B|magnitude_vector)\.default\.weight"
    match = re.fullmatch(pattern, name)
    leaves = {"A": "a", "B": "b", "magnitude_vector": "magnitude"}
    return match and f"layer_{match[1]}/attention/{match[2]}/{leaves[match[3]]}"


def test_outputs_and_gradients_agree_with_peft_for_the_same_weights(torch, pair):
    model, flax_params, delta, delta_params = pair
    labels, inputs = np.array([1, 0, 1]), tiny.inputs()
    out = model(**{name: torch.tensor(array) for name, array in inputs.items()}, labels=torch.tensor(labels))
    out.loss.backward()
    encoder, batch = families.build(tiny.CONFIG), weights.padded_batch(**inputs)
    params = unflatten(flax_params)
    flat = flatten(params["encoder"])
    head = Classifier(classes=2, pooling="pooler")

    def logits(delta_params):
        interceptors = delta.interceptors(delta_params, flat, batch, None, encoder.precision)
        with nn.intercept_methods(adapted_model.at(interceptors)):
            encoded = encoder.apply({"params": params["encoder"]}, batch)
        return head.apply({"params": params["head"]}, encoded, batch)[:, 0]

    def loss(delta_params):
        return -jnp.mean(jax.nn.log_softmax(logits(delta_params))[jnp.arange(3), labels])

    torch_grads = {key: p.grad.numpy().T for name, p in model.named_parameters() if (key := flax_name_of(name))}
    value, flax_grads = jax.jit(jax.value_and_grad(loss))(delta_params)
    np.testing.assert_allclose(logits(delta_params), out.logits.detach().numpy(), atol=1e-5, rtol=0)
    assert abs(float(value) - out.loss.item()) <= 1e-5
    assert flax_grads.keys() == torch_grads.keys() and len(flax_grads) == 3 * 2 * (3 if delta.name == "dora" else 2)
    for name, gradient in flax_grads.items():
        np.testing.assert_allclose(gradient, torch_grads[name], atol=1e-5, rtol=0, err_msg=name)
        assert np.abs(torch_grads[name]).max() > 1e-4, f"{name}: a gradient of zero compares nothing"
    changed = delta_params | {"layer_0/attention/query/a": 1.1 * delta_params["layer_0/attention/query/a"]}
    assert np.abs(logits(changed) - out.logits.detach().numpy()).max() > 1e-4
