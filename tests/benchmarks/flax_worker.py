"""The Flax worker: `python -m tests.benchmarks.flax_worker WORKLOAD` measures research/ as its runs use it. Started by `compare`."""

import importlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from research import storage, weights
from research.adapt.adapted_model import AdaptedModel
from research.config import fields
from research.data import pipeline
from research.data.batches import Batches
from research.data.encode import Tokens
from research.experiment import build as experiments
from research.experiment import experiment
from research.parallel import layouts
from research.train import phases, scalars, step
from research.train.evaluate import evaluate
from research.train.trainers import eval_program, train_program
from tests import runs
from tests.benchmarks import protocol
from tests.benchmarks.workloads import EPOCHS, Epoch, Evaluate, Train, load

FOREVER = 1_000_000  # steps of a schedule that no measurement comes to the end of


class Training:
    """The loop of `train.fit` without its files: the state stays on the device from round to round."""

    def __init__(self, e):
        model, layout = e.model, e.layout
        self._e, self.program = e, train_program(e)
        self._scalars = scalars.scalars(e.config, e.config.learning_rate)
        self._state = layout.place(step.init_state(model.trainable, e.phases[0].optimizer(self._scalars)))
        self._frozen, self._key = layout.place(model.frozen), layout.place(experiment.Experiment.dropout_key.fget(e))

    def run(self, batches: Iterable[step.Batch]) -> int:
        """Train on `batches`, to the end of the last step. Return their number."""
        steps, late = 0, {}
        for batch in batches:
            parts = step.split_microbatches(batch, self._e.config.accumulate, self._e.layout)
            self._state, stats = self.program(self._state, self._frozen, parts, self._key, self._scalars)
            jax.tree.map(np.asarray, late)  # as a run does, fetches the stats of a step while the next one is computed
            late = stats
            steps += 1
        jax.block_until_ready(self._state)
        return steps


def random_model(shape: dict, max_length: int, **others: Any) -> AdaptedModel:
    """Return a classifier of two classes on a BERT of this shape, through `build_model`, which needs a model's folder."""
    c = importlib.import_module("configs.sst2").get_config("data=demo")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps({"model_type": "bert"} | shape))
        save_file({"none": np.zeros(1, np.float32)}, Path(folder) / "model.safetensors")  # "scratch" reads nothing of it
        (Path(folder) / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")  # nor are texts read: ids are random
        changes = {"model": folder, "weights.source": "scratch", "max_length": max_length, "total_steps": FOREVER}
        changes |= others
        return runs.build_model(experiments.resolve(fields.override(c, changes)), ("negative", "positive"))


def random_ids(w: Train | Evaluate) -> np.ndarray:
    """Return token ids [rows, length], none of them special."""
    return np.random.default_rng(0).integers(0, w.shape["vocab_size"], (w.rows, w.length), dtype=np.int32)


def looped(model: AdaptedModel, rows: int) -> Training:
    """Return the loop of a model without data, at a constant learning rate."""
    made = phases.make(model, FOREVER, {"batch_size": rows, "epoch_steps": 1})
    layout = layouts.layout("jit")
    return Training(SimpleNamespace(config=model.config, model=model, layout=layout, phases=made, total_steps=FOREVER))


def measure_training(w: Train) -> Callable[[int], dict]:
    """Return a function that measures full training steps on one batch of random ids."""
    loop = looped(random_model(w.shape, w.length, **w.changes), w.rows)
    ids = random_ids(w)
    batch = weights.padded_batch(ids, np.ones_like(ids)) | {"labels": np.arange(w.rows, dtype=np.int32)[:, None] % 2}
    loop.run([batch] * 2)
    return lambda _: {"work": loop.run([batch] * w.steps)}


def measure_evaluation(w: Evaluate) -> Callable[[int], dict]:
    """Return a function that measures evaluation: batches of about `eval_batch_tokens`, laid out in each pass, logits fetched."""
    model = random_model(w.shape, w.length)
    layout, ids = layouts.layout(model.config.parallel), random_ids(w)
    offsets = np.arange(w.rows + 1, dtype=np.int64) * w.length
    tokens = Tokens(ids.reshape(-1), np.zeros(ids.size, np.int8), offsets, np.diff(offsets))
    size = pipeline.eval_batch_size(model, tokens, layout.multiple)
    batches = Batches(tokens, {}, size, seed=0, layout=model.config.packing, multiple=layout.multiple)
    program = eval_program(model, layout)
    trees = [layout.replicate(tree) for tree in (model.trainable, model.frozen)]

    def passes(count: int) -> dict:
        for _ in range(count):
            evaluate(program, *trees, batches, layout)
        return {"work": count, "note": f"Flax in batches of {batches.batch_size} rows"}

    passes(2)
    return lambda _: passes(w.passes)


def measure_epoch(w: Epoch) -> Callable[[int], dict]:
    """Return a function that measures an epoch of a real run: packed batches, laid out while the device works."""
    c = importlib.import_module(f"configs.{w.config}").get_config(f"model={w.model},data=files")
    changes = {"data.path": w.data, "max_length": w.max_length, "batch_size": w.batch_size, "total_steps": FOREVER}
    e = experiments.build(experiments.resolve(fields.override(c, changes)))
    loop, warm = Training(e), {}
    for number in range(EPOCHS):  # a rare batch asks for a larger shape: it must not be compiled in the middle of a round
        for batch in e.train.epoch(number):
            warm.setdefault(batch["segments"].shape, batch)
    for batch in warm.values():
        loop.run([batch] * 3)

    def epoch(k: int) -> dict:
        loop.run(e.train.epoch(k % EPOCHS))
        return {"work": w.examples}

    return epoch


MEASURES = {Train: measure_training, Evaluate: measure_evaluation, Epoch: measure_epoch}


def main() -> None:
    """Get ready for the workload on the command line and serve it."""
    jax.config.update("jax_compilation_cache_dir", str(storage.folder("compiled")))  # as research/experiment/modes.py does
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    workload = load(sys.argv[1])
    protocol.serve(MEASURES[type(workload)](workload))


if __name__ == "__main__":
    main()
