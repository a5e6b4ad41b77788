"""What freezing the first k layers saves, for every k: FLOPs as XLA counts them beside arithmetic, and time beside both.

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
from tests.benchmarks import compare, ours, workloads
from tests.benchmarks.workloads import Train

MODELS = {"MiniLM 32x128": (workloads.MINILM, 32), "BERT-base 16x128": (workloads.BERT_BASE, 16)}
LENGTH = 128
PAGE = Path(__file__).with_name("FREEZING.md")
HEAD = (
    "| model | trains | GFLOP | arithmetic | of GFLOP | beside full | s/step: median (min) | beside full | predicted "
    "| of predicted: median (min) |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def frozen(whole: AdaptedModel, k: int) -> AdaptedModel:
    """`whole` with the embeddings and the first `k` layers frozen; everything trains where `k` is negative. What trains is a copy,
    for a loop uses it up."""
    layers = len(whole.encoder.stages) - 1
    method = "full" if k < 0 else "linear_probe" if k == layers else "top_k"
    config = configs.copied(whole.config, {"method": method, "top_layers": layers - k})
    recipe, params = methods.recipe(whole.encoder.stages, config), merge(whole.trainable, whole.frozen)
    plan = recipe.plan(params, "", config.no_decay)
    trainable, rest = split(params, plan.trained)
    fields = {name: getattr(whole, name) for name in whole.__dataclass_fields__}
    return AdaptedModel(
        **fields | {"config": config, "recipe": recipe, "plan": plan, "trainable": jax.tree.map(jnp.array, trainable), "frozen": rest}
    )


def measure(name: str, rounds: int, steps: int) -> list[tuple]:
    """(what trains, FLOPs by XLA, by arithmetic, seconds a step of each round) for each k."""
    shape, rows = MODELS[name]
    whole = ours.random_model(shape, LENGTH)
    ids = ours.random_ids(Train("", shape, rows, LENGTH, 0))
    batch = weights.padded_batch(ids, np.ones_like(ids)) | {"labels": np.arange(rows, dtype=np.int32)[:, None] % 2}
    sizes = {path: leaf.shape for path, leaf in flatten(merge(whole.trainable, whole.frozen)).items()}
    loops, found = [], []
    for k in range(-1, shape["num_hidden_layers"] + 1):
        model = frozen(whole, k)
        loop = ours.looped(model, rows)
        loop.run([batch] * 2)
        what = "everything" if k < 0 else f"all but embeddings and {k} layers" if k < shape["num_hidden_layers"] else "the head"
        arithmetic = flops.step(model.plan, sizes, flops.Shape.of(model.encoder), rows * LENGTH, LENGTH)
        found.append((what, loop.program.flops, arithmetic, []))
        loops.append(loop)
        print(f"{name}: {what} compiled", flush=True)
    for _ in range(rounds):
        for loop, (*_, seconds) in zip(loops, found, strict=True):
            loop.run([batch])
            begin = time.perf_counter()
            loop.run([batch] * steps)
            seconds.append((time.perf_counter() - begin) / steps)
    return found


def rows(name: str, found: list[tuple]) -> list[str]:
    """The lines of the table."""
    most = found[0][1]
    usual, fastest = (predicted(found, of) for of in (median, min))
    lines = []
    for (what, counted, arithmetic, seconds), expected, quickest in zip(found, usual, fastest, strict=True):
        measured = median(seconds)
        cells = name, what, f"{counted / 1e9:.1f}", f"{arithmetic / 1e9:.1f}", f"{arithmetic / counted:.3f}", f"{counted / most:.3f}"
        cells += (
            f"{measured:.3f} ({min(seconds):.3f})",
            f"{measured / median(found[0][3]):.3f}",
            f"{expected:.3f}",
            f"{measured / expected:.2f} ({min(seconds) / quickest:.2f})",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def predicted(found: list[tuple], of: Callable[[list[float]], float]) -> list[float]:
    """Seconds a step of each k by the two rates, taken from `of` the rounds: the median, or the fastest."""
    (_, _, every, slowest), (_, _, least, fastest) = found[0], found[-1]
    backward = (of(slowest) - of(fastest)) / (every - least)
    return [of(fastest) + (arithmetic - least) * backward for _, _, arithmetic, _ in found]


def main() -> None:
    """Measures and writes the page."""
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
