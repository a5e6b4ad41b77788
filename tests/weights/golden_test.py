"""Comparison of a tiny BERT with saved PyTorch hidden states, for machines without PyTorch.

`RESEARCH_UPDATE_GOLDENS=1 python -m pytest tests/weights/golden_test.py -m torch` saves them again.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from research import weights
from tests.weights import tiny

GOLDEN = Path(__file__).parents[1] / "goldens" / "tiny_bert.npz"


def test_hidden_states_are_those_of_pytorch(tmp_path):
    model, params, _ = weights.load(str(tiny.save(tmp_path, tiny.tensors())))
    golden = np.load(GOLDEN)
    out = model.apply({"params": params["encoder"]}, weights.padded_batch(*(golden[name] for name in tiny.inputs())))
    np.testing.assert_allclose(np.stack(out.stages), golden["stages"], atol=1e-5, rtol=0)
    np.testing.assert_allclose(out.pooled[:, 0], golden["pooled"], atol=1e-5, rtol=0)


def test_other_weights_give_other_hidden_states(tmp_path):
    model, params, _ = weights.load(str(tiny.save(tmp_path, tiny.tensors(seed=1))))
    out = model.apply({"params": params["encoder"]}, weights.padded_batch(**tiny.inputs()))
    assert np.abs(out.last - np.load(GOLDEN)["stages"][-1]).max() > 0.1


@pytest.mark.torch
def test_pytorch_still_computes_the_golden_values(tmp_path):
    import torch
    from transformers import BertModel

    torch.set_num_threads(1)
    model = BertModel.from_pretrained(tiny.save(tmp_path, tiny.tensors())).eval().double()  # in float32, processors differ by 2e-6
    with torch.no_grad():
        out = model(**{name: torch.tensor(array) for name, array in tiny.inputs().items()}, output_hidden_states=True)
    outputs = tiny.inputs() | {
        "stages": np.stack(out.hidden_states, dtype=np.float32),
        "pooled": out.pooler_output.numpy().astype(np.float32),
    }
    if os.environ.get("RESEARCH_UPDATE_GOLDENS"):
        GOLDEN.parent.mkdir(exist_ok=True)
        np.savez_compressed(GOLDEN, **outputs)
    golden = np.load(GOLDEN)
    for name, array in outputs.items():
        np.testing.assert_allclose(array, golden[name], atol=1e-6, rtol=0, err_msg=name)
