"""Measure the cost of the two ways to save memory: rematerialisation and accumulation, each beside a plain training step.

    python -m tests.benchmarks.memory --rounds=3          # BERT-base 16x128; writes tests/benchmarks/MEMORY.md

Each setting is a process of its own; they are measured by turns, round by round. Leave the machine alone meanwhile.
"""

import argparse
import contextlib
import dataclasses
import datetime
import sys
from pathlib import Path
from statistics import median

from tests.benchmarks import compare, workloads
from tests.benchmarks.protocol import Worker

SETTINGS = {
    "plain": {},
    "remat": {"remat": True},
    "accumulate=2": {"accumulate": 2},
    "accumulate=4": {"accumulate": 4},
    "accumulate=4, remat": {"accumulate": 4, "remat": True},
}
WORKLOAD = "train BERT-base 16x128"
PAGE = Path(__file__).with_name("MEMORY.md")


def measure(workload: workloads.Train, rounds: int) -> dict[str, list[dict]]:
    """Return the answers of each setting, round by round."""
    environment = compare.environments([])["flax_worker"]
    with contextlib.ExitStack() as stack:
        pool = {}
        for name, changes in SETTINGS.items():
            line = workloads.dump(dataclasses.replace(workload, changes=changes))
            print(f"starting {name}", file=sys.stderr, flush=True)
            pool[name] = stack.enter_context(Worker(name, [sys.executable, "-m", "tests.benchmarks.flax_worker", line], environment))
        measured = {name: [] for name in pool}
        for k in range(rounds):
            for name, worker in pool.items():
                measured[name].append(worker.round(k))
    return measured


def lines(measured: dict[str, list[dict]]) -> list[str]:
    """Return the table; times and memory beside those of the first setting."""
    table = ["| setting | s/step: median (min-max) | beside plain | peak memory | beside plain |", "|---|---|---|---|---|"]
    first = None
    for name, answers in measured.items():
        seconds = [answer["seconds"] / answer["work"] for answer in answers]
        peak = max(answer["peak_memory_bytes"] for answer in answers) / 2**20
        first = first or (median(seconds), peak)
        cells = f"{median(seconds):.2f} ({min(seconds):.2f}-{max(seconds):.2f})", f"{median(seconds) / first[0]:.2f}"
        table.append(f"| {' | '.join((name, *cells, f'{peak:,.0f} MiB', f'{peak / first[1]:.2f}'))} |")
    return table


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.memory", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    table = lines(measure(workloads.WORKLOADS[WORKLOAD], args.rounds))
    how = f"{WORKLOAD}, measured {datetime.date.today()} by `python -m tests.benchmarks.memory`."
    compare.write_table(PAGE, "What saving memory costs", how, table)


if __name__ == "__main__":
    main()
