"""Measure what freezing the first k layers saves, for every k: FLOPs as XLA counts them beside arithmetic, and time beside both.

    python -m tests.benchmarks.freezing --rounds=7        # MiniLM 32x128 and BERT-base 16x128; writes tests/benchmarks/FREEZING.md

Nothing is cached between steps here: a frozen layer costs its forward pass. All depths of a model are compiled first; then they are
measured by turns, round by round, each after a step that does not count. Leave the machine alone meanwhile.

The time of a step is predicted from the arithmetic and two rates: what the head alone costs, which is the forward pass, and how fast the
step that trains everything does what it has to do beyond that, backward pass and optimizer. Medians are beside medians, the fastest
rounds beside the fastest: the host of a virtual machine takes freed memory back within two seconds, and every other step that is so
long waits up to a second until it has memory again.
"""

import argparse
import datetime
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import jax
import jax.numpy as jnp
import numpy as np

from research import storage, weights
from research.adapt import flops, methods
from research.adapt.adapted_model import AdaptedModel
from research.config import fields as configs
from research.params.tree import flatten, merge, split
from tests.benchmarks import compare, flax_worker, workloads
from tests.benchmarks.workloads import Train

MODELS = {"MiniLM 32x128": (workloads.MINILM, 32), "BERT-base 16x128": (workloads.BERT_BASE, 16)}
LENGTH = 128
PAGE = Path(__file__).with_name("FREEZING.md")
HEAD = (
    "| model | trains | GFLOP | arithmetic | of GFLOP | beside full | s/step: median (min) | beside full | predicted "
    "| of predicted: median (min) |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def frozen(full_model: AdaptedModel, k: int) -> AdaptedModel:
    """Return `full_model` with the embeddings and the first `k` layers frozen, or none if `k` is negative. Trainable parameters are copies,
    because a loop donates them."""
    layers = len(full_model.encoder.stages) - 1
    method = "full" if k < 0 else "linear_probe" if k == layers else "top_k"
    config = configs.copied(full_model.config, {"method": method, "top_layers": layers - k})
    recipe, params = methods.recipe(full_model.encoder.stages, config), merge(full_model.trainable, full_model.frozen)
    plan = recipe.plan(params, "", config.no_decay)
    trainable, rest = split(params, plan.trained)
    fields = {name: getattr(full_model, name) for name in full_model.__dataclass_fields__}
    return AdaptedModel(
        **fields | {"config": config, "recipe": recipe, "plan": plan, "trainable": jax.tree.map(jnp.array, trainable), "frozen": rest}
    )


def measure(name: str, rounds: int, steps: int) -> list[tuple]:
    """Return (what trains, FLOPs by XLA, by arithmetic, seconds a step of each round) for each k."""
    shape, rows = MODELS[name]
    full_model = flax_worker.random_model(shape, LENGTH)
    ids = flax_worker.random_ids(Train("", shape, rows, LENGTH, 0))
    batch = weights.padded_batch(ids, np.ones_like(ids)) | {"labels": np.arange(rows, dtype=np.int32)[:, None] % 2}
    sizes = {path: leaf.shape for path, leaf in flatten(merge(full_model.trainable, full_model.frozen)).items()}
    loops, measurements = [], []
    for k in range(-1, shape["num_hidden_layers"] + 1):
        model = frozen(full_model, k)
        loop = flax_worker.looped(model, rows)
        loop.run([batch] * 2)
        what = "everything" if k < 0 else f"all but embeddings and {k} layers" if k < shape["num_hidden_layers"] else "the head"
        arithmetic = flops.step(model.plan, sizes, flops.Shape.of(model.encoder), rows * LENGTH, LENGTH)
        measurements.append((what, loop.program.flops, arithmetic, []))
        loops.append(loop)
        print(f"{name}: {what} compiled", flush=True)
    for _ in range(rounds):
        for loop, (*_, seconds) in zip(loops, measurements, strict=True):
            loop.run([batch])
            begin = time.perf_counter()
            loop.run([batch] * steps)
            seconds.append((time.perf_counter() - begin) / steps)
    return measurements


def rows(name: str, measurements: list[tuple]) -> list[str]:
    """Return the lines of the table."""
    most = measurements[0][1]
    usual, fastest = (predicted(measurements, of) for of in (median, min))
    lines = []
    for (what, counted, arithmetic, seconds), expected, quickest in zip(measurements, usual, fastest, strict=True):
        measured = median(seconds)
        cells = name, what, f"{counted / 1e9:.1f}", f"{arithmetic / 1e9:.1f}", f"{arithmetic / counted:.3f}", f"{counted / most:.3f}"
        cells += (
            f"{measured:.3f} ({min(seconds):.3f})",
            f"{measured / median(measurements[0][3]):.3f}",
            f"{expected:.3f}",
            f"{measured / expected:.2f} ({min(seconds) / quickest:.2f})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def predicted(measurements: list[tuple], of: Callable[[list[float]], float]) -> list[float]:
    """Return seconds a step of each k by the two rates, taken from `of` the rounds: the median, or the fastest."""
    (_, _, every, slowest), (_, _, least, fastest) = measurements[0], measurements[-1]
    backward = (of(slowest) - of(fastest)) / (every - least)
    return [of(fastest) + (arithmetic - least) * backward for _, _, arithmetic, _ in measurements]


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.freezing", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=1, help="steps of a round")
    parser.add_argument("--only", choices=MODELS, action="append", help="only this model")
    args = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(storage.folder("compiled")))
    lines = list(HEAD)
    for name in args.only or MODELS:
        lines += rows(name, measure(name, args.rounds, args.steps))
    how = f"Measured {datetime.date.today()} by `python -m tests.benchmarks.freezing`."
    compare.write_table(PAGE, "What every frozen layer saves", how, lines)


if __name__ == "__main__":
    main()
