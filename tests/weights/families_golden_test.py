"""The states and logits of a small classifier of each family as PyTorch computed them once, so that parity is held where PyTorch is not
installed.

`RESEARCH_UPDATE_GOLDENS=1 python -m pytest tests/weights/families_golden_test.py -m torch` writes them again.
"""

import json
import os

import numpy as np
import pytest

from research import weights
from tests.weights import families


def found(name: str, folder) -> dict[str, np.ndarray]:
    """The states [stages, real tokens, D] and logits [B, C] that we give for what is in the folder, with the golden inputs."""
    golden, (whole, params, _) = families.golden(name), weights.load(str(folder), head=True)
    batch = weights.padded_batch(*(golden[key] for key in families.inputs(name)))
    encoded = whole.encoder.apply({"params": params["encoder"]}, batch)
    logits = whole.head.apply({"params": params["head"]}, encoded, batch)[:, 0]
    return {"stages": np.stack(encoded.stages)[:, golden["attention_mask"] == 1], "logits": np.asarray(logits)}


@pytest.mark.parametrize("name", families.CONFIGS)
def test_the_states_and_logits_are_those_that_pytorch_gave(name, tmp_path):
    golden, ours = families.golden(name), found(name, families.save(tmp_path, name, families.classifier(name)))
    for key in ("stages", "logits"):
        np.testing.assert_allclose(ours[key], golden[key], atol=2e-5, rtol=0, err_msg=key)


@pytest.mark.parametrize("name", families.CONFIGS)
def test_other_weights_give_other_states_and_logits(name, tmp_path):
    golden, ours = families.golden(name), found(name, families.save(tmp_path, name, families.classifier(name, seed=1)))
    for key in ("stages", "logits"):
        assert np.abs(ours[key] - golden[key]).max() > 0.1, key


def test_the_goldens_are_small_and_of_the_families_that_there_are():
    files = list(families.GOLDENS.glob("*.npz"))
    assert {path.stem for path in files} == {"tiny_bert", *families.CONFIGS}
    assert sum(path.stat().st_size for path in files) <= 300_000


@pytest.mark.torch
@pytest.mark.parametrize("name", families.CONFIGS)
def test_pytorch_still_gives_the_golden_values(name, tmp_path):
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(1)
    layout = {parameter: list(value.shape) for parameter, value in families.theirs(name, "classifier").named_parameters()}
    folder = families.save(tmp_path, name, families.tensors(layout))
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval().double()  # in float32, processors differ by 2e-6
    with torch.no_grad():
        out = model(**families.as_torch(families.inputs(name)), output_hidden_states=True)
    real = families.inputs(name)["attention_mask"] == 1
    seen = {
        **families.inputs(name),
        "stages": np.stack(out.hidden_states)[:, real].astype(np.float32),
        "logits": out.logits.numpy().astype(np.float32),
        "layout": np.bytes_(json.dumps(layout)),
    }
    if os.environ.get("RESEARCH_UPDATE_GOLDENS"):
        np.savez_compressed(families.GOLDENS / f"{name}.npz", **seen)
    golden = families.golden(name)
    assert golden.keys() == seen.keys() and json.loads(golden["layout"].item()) == layout
    for key in seen.keys() - {"layout"}:
        np.testing.assert_allclose(seen[key], golden[key], atol=1e-6, rtol=0, err_msg=key)
