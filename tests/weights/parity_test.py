"""Comparison of BERT in Flax and in PyTorch's `transformers`, loaded from the same folder."""

import gzip
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research import weights
from research.models.heads import Classifier
from research.weights import hub
from research.weights.name_map import to_flax
from research.weights.tables import BERT
from tests.runs import DATA
from tests.weights import tiny

pytestmark = pytest.mark.torch
SENTENCES = (
    "A film of rare, quiet beauty.",
    "Why?",
    "The committee's 1997 report (all 412 pages of it) was, in the end, never read by anyone who could have acted on it.",
    "naïve café owners déjà vu 你好 emoji-free zone; e-mail: someone@example.com",
    "I bought this on a Tuesday and returned it on a Wednesday; that should tell you everything you need to know about it.",
    "no punctuation no capitals just words that go on and on until the sentence finally decides that it has had enough of itself",
    "$3.50 for a coffee!!! #outrage",
    "",
)


@pytest.fixture(scope="module")
def torch():
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torch


def saved(torch, folder: Path, cls: str):
    """Save a `transformers` model with all parameters random (no zero biases, no unit norms) and return it."""
    import transformers

    config = transformers.BertConfig(**{k: v for k, v in tiny.CONFIG.items() if k != "model_type"}, num_labels=3)
    model = getattr(transformers, cls)(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(float(name.endswith("LayerNorm.weight")), 0.2)
    model.save_pretrained(folder)
    return model


def tensors(torch, arrays):
    return {name: torch.tensor(array) for name, array in arrays.items()}


def test_every_submodule_agrees(torch, tmp_path):
    torch_model = saved(torch, tmp_path, "BertModel")
    outputs = {}
    for name, module in torch_model.named_modules():
        module.register_forward_hook(lambda _, inputs, out, name=name: outputs.update({name: out[0] if isinstance(out, tuple) else out}))
    with torch.no_grad():
        torch_model(**tensors(torch, tiny.inputs()))
    model, params, _ = weights.load(str(tmp_path))
    batch = weights.padded_batch(**tiny.inputs())
    out, state = model.apply({"params": params["encoder"]}, batch, capture_intermediates=True, mutable=["intermediates"])
    intermediates = state["intermediates"]
    pairs = {"embeddings": intermediates["embeddings"]["__call__"][0], "pooler": out.pooled[:, 0], "": out.last}
    pairs["embeddings.word_embeddings"] = intermediates["embeddings"]["word"]["__call__"][0]
    for i in range(tiny.CONFIG["num_hidden_layers"]):
        layer = intermediates[f"layer_{i}"]
        pairs[f"encoder.layer.{i}.attention.self.query"] = layer["attention"]["query"]["__call__"][0]
        pairs[f"encoder.layer.{i}.attention"] = layer["attention"]["__call__"][0]
        pairs[f"encoder.layer.{i}.output"] = layer["mlp"]["__call__"][0]
        pairs[f"encoder.layer.{i}"] = out.stages[i + 1]
    for name, array in pairs.items():
        wanted = outputs[name] if isinstance(outputs[name], torch.Tensor) else outputs[name].last_hidden_state
        np.testing.assert_allclose(array, wanted.numpy(), atol=1e-5, rtol=0, err_msg=name)


def test_the_gradient_of_every_parameter_agrees(torch, tmp_path):
    torch_model = saved(torch, tmp_path, "BertForSequenceClassification")
    labels = np.array([2, 0, 1])
    loss = torch_model(**tensors(torch, tiny.inputs()), labels=torch.tensor(labels)).loss
    loss.backward()
    model, params, _ = weights.load(str(tmp_path))
    head, batch = Classifier(classes=3, pooling="pooler"), weights.padded_batch(**tiny.inputs())

    def flax_loss(params):
        encoded = model.apply({"params": params["encoder"]}, batch)
        logits = head.apply({"params": params["head"]}, encoded, batch)[:, 0]
        return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(3), labels])

    value, gradient = jax.jit(jax.value_and_grad(flax_loss))(params)
    wanted = to_flax({name: parameter.grad.numpy() for name, parameter in torch_model.named_parameters()}, BERT, "classifier")
    flax_gradient = {"/".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)}
    assert abs(float(value) - loss.item()) <= 1e-5
    assert flax_gradient.keys() == wanted.keys()
    for name, array in flax_gradient.items():
        np.testing.assert_allclose(array, wanted[name], atol=1e-5, rtol=0, err_msg=name)
        assert np.abs(wanted[name]).max() > 1e-4 or name.endswith("key/bias"), f"{name}: a gradient of zero compares nothing"


def states(torch, texts: list[str], max_length: int, double: bool = False):
    """Return states [stages, B, L, D] of Flax, of PyTorch and, with `double`, of PyTorch in float64 (else None); and the mask [B, L]."""
    from transformers import BertModel

    model, params, tokenizer = weights.load("minilm")
    torch_model = BertModel.from_pretrained(hub.find("minilm")).eval()
    apply = jax.jit(lambda batch: model.apply({"params": params["encoder"]}, batch).stages)
    arrays = tokenizer(texts, padding="max_length", truncation=True, max_length=max_length, return_tensors="np")

    def wanted(module):
        with torch.no_grad():
            return np.stack(module(**tensors(torch, arrays), output_hidden_states=True).hidden_states)

    flax_states = np.stack(apply(weights.padded_batch(**arrays)))
    return flax_states, wanted(torch_model), wanted(torch_model.double()) if double else None, arrays["attention_mask"] == 1


def test_the_real_model_agrees_on_sentences(torch):
    flax_states, torch_states, _, real = states(torch, [f"{a} {b}" for a in SENTENCES for b in SENTENCES], max_length=64)
    assert np.abs(flax_states - torch_states)[:, real].max() <= 2e-5
    assert 0.2 < real.mean() < 0.8


def test_the_real_model_is_as_exact_as_pytorch_even_at_padding(torch):
    # Padded positions amplify rounding a hundred times: float32 PyTorch itself is 1e-4 to 2e-4 from float64 there, and the largest of a
    # million such errors depends on how a processor orders sums (with AVX2, Flax was 2.3 times as far); their root mean square less (1.7).
    pairs = [f"{a} {b}" for a in SENTENCES[:4] for b in SENTENCES[:4]]
    flax_states, torch_states, exact, real = states(torch, pairs, max_length=64, double=True)
    for where, times in ((real, 2), (~real, 4)):
        flax_error, torch_error = ((x - exact)[:, where] for x in (flax_states, torch_states))
        assert np.abs(flax_error).max() <= times * np.abs(torch_error).max() <= 1e-3
        assert np.square(flax_error).mean() ** 0.5 <= 2 * np.square(torch_error).mean() ** 0.5


@pytest.mark.data
def test_the_real_model_agrees_on_reviews(torch):
    with gzip.open(DATA / "imdb" / "test.tsv.gz", "rt", encoding="utf-8") as lines:
        reviews = [line.rpartition("\t")[0] for line in itertools.islice(lines, 1, 65)]
    for start in range(0, 64, 16):
        flax_states, torch_states, _, real = states(torch, reviews[start : start + 16], max_length=256)
        assert np.abs(flax_states - torch_states)[:, real].max() <= 2e-5
    assert len(reviews) == 64 and real.sum() > 1000


def test_the_tokenizer_agrees_with_the_one_that_transformers_chooses():
    from transformers import AutoTokenizer

    folder = hub.find("minilm")
    texts = [*SENTENCES, "[CLS] special [MASK] tokens [SEP]", "tabs\tand\nnewlines \u200b zero width"]
    assert weights.open("minilm").tokenizer()(texts).data == AutoTokenizer.from_pretrained(folder)(texts).data
