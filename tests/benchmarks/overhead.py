"""Measure what a sweep costs beside training: seconds for each smoke run, of runs alone and of fleets, in one process like a worker's.

    python -m tests.benchmarks.overhead --rounds=6

Each task is a smoke run, or a fleet of so many, with seeds of its own; the first task, which compiles, does not count. Of the wall time
of a task, the training itself is `build` (the data, the model and its plan: all before the workdir is written to) and `programs` (steps
and evaluations, from tracing to the last number). The rest is the harness: what is listed, and under `rest` the loop and the lockstep of
runs that train together. Medians over tasks, in seconds for one run; leave the machine alone meanwhile.
"""

import argparse
import contextlib
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from unittest import mock

from configs import trec
from research.config import fields
from research.experiment import workdir as workdirs

PARTS = "build", "programs", "checkpoints", "metrics", "predictions", "curves.png"
HEAD = f"| method | runs a task | wall | {' | '.join(PARTS)} | rest | harness |"


@contextlib.contextmanager
def timed(seconds: Counter) -> Iterator[None]:
    """Add the time of the parts inside the context to `seconds`."""
    import jax

    from research.experiment import evaluations, modes
    from research.parallel import program
    from research.tracking import curves, writer
    from research.train import checkpoint

    where = {
        "programs": [(program.Program, "__call__")],
        "checkpoints": [(checkpoint.Checkpoints, name) for name in ("__init__", "save", "restore_trainable", "meta", "bytes")],
        "metrics": [(writer.Telemetry, name) for name in ("__init__", "write", "__exit__")],
        "predictions": [(evaluations, "prediction_rows"), (evaluations, "write_lines")],
        "curves.png": [(curves, "draw")],
    }
    begin, record = time.perf_counter(), workdirs.record

    def recorded(*args):
        seconds["build"] = seconds["build"] or time.perf_counter() - begin  # in a fleet, until the first of them
        return record(*args)

    def adding(part: str, function: Callable) -> Callable:
        def call(*args, **options):
            start = time.perf_counter()
            try:
                return jax.block_until_ready(function(*args, **options)) if part == "programs" else function(*args, **options)
            finally:
                seconds[part] += time.perf_counter() - start

        return call

    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(modes.workdirs, "record", recorded))
        for part, functions in where.items():
            for owner, name in functions:
                stack.enter_context(mock.patch.object(owner, name, adding(part, getattr(owner, name))))
        yield


def measure(method: str, size: int, rounds: int) -> list[dict[str, float]]:
    """Return the seconds of one run, in all and of each part, for each task but the first."""
    from research.ablation import runs as sweep_runs
    from research.ablation import worker

    tasks = []
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, (rounds + 1) * size, size):
            overrides = [{"method": method, "seed": seed} for seed in range(first, first + size)]
            named_runs = sweep_runs.identify([(one, fields.override(trec.get_config("smoke"), one)) for one in overrides])
            seconds, begin = Counter(), time.perf_counter()
            with timed(seconds):
                worker.do(named_runs, Path(folder), lambda text: None)
            tasks.append({part: s / size for part, s in (seconds | {"wall": time.perf_counter() - begin}).items()})
            if len(list(Path(folder).glob("*/result.json"))) != first + size:
                raise RuntimeError(f"{method}: a run failed: {[path.read_text() for path in Path(folder).glob('*/error.txt')]}")
    return tasks[1:]


def line(method: str, size: int, tasks: list[dict[str, float]]) -> str:
    """Return a line of the table."""
    harness = median(task["wall"] - task["build"] - task["programs"] for task in tasks)
    rest = median(task["wall"] - sum(task[part] for part in PARTS) for task in tasks)
    columns = [median(task["wall"] for task in tasks), *(median(task[part] for task in tasks) for part in PARTS), rest, harness]
    return f"| {method} | {size} | {' | '.join(f'{seconds:.2f}' for seconds in columns)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.overhead", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=6, help="tasks that count, of each kind")
    parser.add_argument("--fleet", type=int, default=16, help="runs of a fleet")
    parser.add_argument("--method", action="append", help="only this; by default linear_probe, lora and full")
    args = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")

    from research.experiment import modes

    modes.keep_programs()
    print(HEAD, "|---|" + "---|" * (HEAD.count("|") - 2), sep="\n")
    for method in args.method or ["linear_probe", "lora", "full"]:
        for size in (1, args.fleet):
            print(line(method, size, measure(method, size, args.rounds if size == 1 else max(1, args.rounds // 2))), flush=True)


if __name__ == "__main__":
    main()
