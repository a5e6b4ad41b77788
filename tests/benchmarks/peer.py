"""The peer's worker: `python -m tests.benchmarks.peer WORKLOAD` measures PyTorch `transformers`. Started by `compare`.

Its best honest configuration on a CPU: bfloat16 autocast, the faster of SDPA and eager attention (with dropout SDPA has no fast path
here), fused AdamW, gradients dropped instead of zeroed, tokens as tensors beforehand, and, where lengths vary, batches of similar
lengths padded to their own longest. What is faster on this machine is tried in a process of its own, `peer_options`, before.
"""

import itertools
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from tests.benchmarks import protocol
from tests.benchmarks.workloads import EPOCHS, Epoch, Evaluate, Probe, Train, Workload, dump, load, read

Batch = dict[str, torch.Tensor]
MEGABATCH = 50  # batches that are sorted by length together


class Training:
    """The usual loop over a model's trainable parameters."""

    def __init__(self, model: torch.nn.Module, learning_rate: float = 5e-5):
        self.model = model
        self._trained = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self._trained, lr=learning_rate, weight_decay=0.01, fused=True)

    def step(self, batch: Batch) -> torch.Tensor:
        """Make one update and return the loss."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()


class Texts:
    """Encoded (text, label) pairs, and their batches."""

    def __init__(self, tokenizer, examples: list[tuple[str, str]], labels: list[str], max_length: int):
        texts = [text for text, _ in examples]
        encoded = tokenizer(texts, truncation=True, max_length=max_length, return_attention_mask=False)["input_ids"]
        self.ids = [torch.tensor(ids) for ids in encoded]
        self.labels = torch.tensor([labels.index(label) for _, label in examples])

    def batch(self, members: list[int]) -> Batch:
        """Return a batch padded to the longest of `members`."""
        ids = [self.ids[i] for i in members]
        mask = pad_sequence([torch.ones_like(x) for x in ids], batch_first=True)
        return {"input_ids": pad_sequence(ids, batch_first=True), "attention_mask": mask, "labels": self.labels[members]}

    def epoch(self, size: int, seed: int) -> Iterator[Batch]:
        """Yield all examples once in batches of similar lengths, in random order."""
        rng, order = random.Random(seed), list(range(len(self.ids)))
        rng.shuffle(order)
        order = [i for mega in _batched(order, MEGABATCH * size) for i in sorted(mega, key=lambda i: -len(self.ids[i]))]
        batches = _batched(order, size)
        rng.shuffle(batches)
        return map(self.batch, batches)

    def sorted(self, size: int) -> Iterator[Batch]:
        """Yield all examples once in order of length, for evaluation."""
        return map(self.batch, _batched(sorted(range(len(self.ids)), key=lambda i: -len(self.ids[i])), size))


def _batched(items: list[int], size: int) -> list[list[int]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def pretrained(folder: str, classes: int) -> torch.nn.Module:
    """Return the model of a folder with a new classifier, with SDPA attention."""
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes, attn_implementation="sdpa")


def texts(w: Epoch | Probe, split: str) -> Texts:
    """Return a split of the workload's data, encoded."""
    labels = sorted({label for _, label in read(Path(w.data), "train")})
    return Texts(AutoTokenizer.from_pretrained(w.weights), read(Path(w.data), split), labels, w.max_length)


def random_model(w: Train | Evaluate) -> tuple[torch.nn.Module, Batch]:
    """Return a random classifier of two classes of the workload's shape, and a batch of random ids without padding."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**w.shape, num_labels=2, attn_implementation="sdpa"))
    ids = torch.randint(w.shape["vocab_size"], (w.rows, w.length))
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(w.rows) % 2}


class RandomTraining:
    """Full training steps on one batch."""

    def __init__(self, w: Train):
        self.model, self._batch = random_model(w)
        self._loop, self._steps = Training(self.model.train()), w.steps

    def sample(self, rows: int) -> None:
        """Make one step."""
        self._loop.step(self._batch)

    def round(self, k: int, rows: int) -> dict:
        """Make the steps of a round."""
        for _ in range(self._steps):
            self._loop.step(self._batch)
        return {"work": self._steps}


class Evaluation:
    """Forward passes in evaluation mode, in chunks of `rows`."""

    def __init__(self, w: Evaluate):
        self.model, self._batch = random_model(w)
        self.model.eval()
        del self._batch["labels"]
        self._rows, self._passes = w.rows, w.passes

    @torch.no_grad()
    def sample(self, rows: int) -> None:
        """Make one pass over all rows."""
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for first in range(0, self._rows, rows):
                self.model(**{name: x[first : first + rows] for name, x in self._batch.items()}).logits.float().numpy()

    def round(self, k: int, rows: int) -> dict:
        """Make the passes of a round."""
        for _ in range(self._passes):
            self.sample(rows)
        return {"work": self._passes}


class TextTraining:
    """Fine-tuning, an epoch a round."""

    def __init__(self, w: Epoch):
        self.model, self._data, self._size = pretrained(w.weights, w.classes), texts(w, "train"), w.batch_size
        self._loop = Training(self.model.train())
        self._few = list(itertools.islice(self._data.epoch(w.batch_size, seed=EPOCHS), 4))

    def sample(self, rows: int) -> None:
        """Train on a few batches."""
        for batch in self._few:
            self._loop.step(batch)

    def round(self, k: int, rows: int) -> dict:
        """Train for an epoch."""
        for batch in self._data.epoch(self._size, seed=k % EPOCHS):
            self._loop.step(batch)
        return {"work": len(self._data.ids)}


BENCHES = {Train: RandomTraining, Evaluate: Evaluation, Epoch: TextTraining}


def faster_options(w: Workload) -> dict:
    """Return the options that `peer_options` finds fastest here, in another process: its memory does not count as memory of this one."""
    done = subprocess.run([sys.executable, "-m", "tests.benchmarks.peer_options", dump(w)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Get ready for the workload on the command line and serve it."""
    workload = load(sys.argv[1])
    chosen = faster_options(workload)
    bench, rows = BENCHES[type(workload)](workload), chosen["rows"]
    bench.model.set_attn_implementation(chosen["attention"])
    for _ in range(2):
        bench.sample(rows)
    protocol.serve(lambda k: bench.round(k, rows) | {"note": chosen["note"]})


if __name__ == "__main__":
    main()
