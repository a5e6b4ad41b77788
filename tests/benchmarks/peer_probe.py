"""The peer's whole command: `python -m tests.benchmarks.peer_probe WORKLOAD` trains a linear probe and prints its test accuracy.

As the peer is used at its best: the encoder is frozen and in evaluation mode, so that nothing of it is kept for a backward pass and
attention takes its fast path; dev is evaluated after each epoch, and test once, with the classifier that was best on dev.
"""

import copy
import json
import sys

import torch
from transformers import get_linear_schedule_with_warmup

from tests.benchmarks.peer import Texts, Training, pretrained, texts
from tests.benchmarks.workloads import Probe, load

EVAL_ROWS = 64


@torch.no_grad()
def accuracy(model: torch.nn.Module, data: Texts) -> float:
    """Return the share of examples that are classified right."""
    model.eval()
    right = 0
    for batch in data.sorted(EVAL_ROWS):
        labels = batch.pop("labels")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            right += int((model(**batch).logits.argmax(-1) == labels).sum())
    return right / len(data.ids)


def probe(w: Probe) -> float:
    """Return the test accuracy of a linear probe, by the recipe of configs/: warm-up over a tenth, then linear to 0."""
    data = {split: texts(w, split) for split in ("train", "dev", "test")}
    model = pretrained(w.weights, w.classes)
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    loop = Training(model)
    steps = w.epochs * -(-len(data["train"].ids) // w.batch_size)
    schedule = get_linear_schedule_with_warmup(loop.optimizer, steps // 10, steps)
    best, best_state = -1.0, None
    for epoch in range(w.epochs):
        model.eval()
        model.dropout.train()  # the classifier's own; the encoder's would only be noise in frozen features
        for batch in data["train"].epoch(w.batch_size, seed=epoch):
            loop.step(batch)
            schedule.step()
        score = accuracy(model, data["dev"])
        if score > best:
            best, best_state = score, copy.deepcopy(model.classifier.state_dict())
    model.classifier.load_state_dict(best_state)
    return accuracy(model, data["test"])


if __name__ == "__main__":
    print(json.dumps({"accuracy": probe(load(sys.argv[1]))}))
