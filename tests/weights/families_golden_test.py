"""Comparison of a small classifier of each family with saved PyTorch states and logits, for machines without PyTorch.

`RESEARCH_UPDATE_GOLDENS=1 python -m pytest tests/weights/families_golden_test.py -m torch` saves them again.
"""

import json
import os

import numpy as np
import pytest

from research import weights
from tests.weights import families


def flax_outputs(name: str, folder) -> dict[str, np.ndarray]:
    """Return the states [stages, real tokens, D] and logits [B, C] of the Flax model in `folder` for the golden inputs."""
    golden, (model, params, _) = families.golden(name), weights.load(str(folder), head=True)
    batch = weights.padded_batch(*(golden[key] for key in families.inputs(name)))
    encoded = model.encoder.apply({"params": params["encoder"]}, batch)
    logits = model.head.apply({"params": params["head"]}, encoded, batch)[:, 0]
    return {"stages": np.stack(encoded.stages)[:, golden["attention_mask"] == 1], "logits": np.asarray(logits)}


@pytest.mark.parametrize("name", families.CONFIGS)
def test_states_and_logits_are_those_of_pytorch(name, tmp_path):
    golden, outputs = families.golden(name), flax_outputs(name, families.save(tmp_path, name, families.classifier(name)))
    for key in ("stages", "logits"):
        np.testing.assert_allclose(outputs[key], golden[key], atol=2e-5, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", families.CONFIGS)
def test_other_weights_give_other_states_and_logits(name, tmp_path):
    golden, outputs = families.golden(name), flax_outputs(name, families.save(tmp_path, name, families.classifier(name, seed=1)))
    for key in ("stages", "logits"):
        assert np.abs(outputs[key] - golden[key]).max() > 0.1, key


def test_every_family_has_a_golden_file_and_they_are_small():
    files = list(families.GOLDENS.glob("*.npz"))
    assert {path.stem for path in files} == {"tiny_bert", *families.CONFIGS}
    assert sum(path.stat().st_size for path in files) <= 300_000


@pytest.mark.torch
@pytest.mark.parametrize("name", families.CONFIGS)
def test_pytorch_still_computes_the_golden_values(name, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    layout = {parameter: list(value.shape) for parameter, value in families.torch_model(name, "classifier").named_parameters()}
    folder = families.save(tmp_path, name, families.tensors(layout))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval().double()  # in float32, processors differ by 2e-6
    with torch.no_grad():
        out = model(**families.as_torch(families.inputs(name)), output_hidden_states=True)
    real = families.inputs(name)["attention_mask"] == 1
    outputs = {
        **families.inputs(name),
        "stages": np.stack(out.hidden_states)[:, real].astype(np.float32),
        "logits": out.logits.numpy().astype(np.float32),
        "layout": np.bytes_(json.dumps(layout)),
    }
    if os.environ.get("RESEARCH_UPDATE_GOLDENS"):
        np.savez_compressed(families.GOLDENS / f"{name}.npz", **outputs)
    golden = families.golden(name)
    assert golden.keys() == outputs.keys() and json.loads(golden["layout"].item()) == layout
    for key in outputs.keys() - {"layout"}:
        np.testing.assert_allclose(outputs[key], golden[key], atol=1e-6, rtol=0, err_msg=key)
