"""Find the fastest of the peer's options on this machine: `python -m tests.benchmarks.peer_options WORKLOAD` prints it as JSON."""

import json
import math
import sys
import time

from tests.benchmarks.peer import BENCHES
from tests.benchmarks.workloads import Evaluate, Workload, load

ATTENTIONS = ("sdpa", "eager")
CHUNK_TOKENS = 2048  # evaluation: all rows at once, or as many as have about so many tokens
TRIALS = 3


def options(w: Workload) -> list[tuple[str, int]]:
    """Return pairs of an attention and the number of rows that are evaluated at once (0 if none are)."""
    rows = {0}
    if isinstance(w, Evaluate):
        rows = {w.rows, max(1, min(w.rows, CHUNK_TOKENS // w.length))}
    return [(attention, r) for attention in ATTENTIONS for r in sorted(rows)]


def fastest(bench, tried: list[tuple[str, int]]) -> tuple[str, int]:
    """Return the option with the quickest sample, of several by turns; the first one of each is not counted."""
    seconds = dict.fromkeys(tried, math.inf)
    for number in range(1 + TRIALS):
        for attention, rows in tried:
            bench.model.set_attn_implementation(attention)
            start = time.perf_counter()
            bench.sample(rows)
            if number:
                seconds[attention, rows] = min(seconds[attention, rows], time.perf_counter() - start)
    return min(seconds, key=seconds.get)


def main() -> None:
    """Try the options and print the fastest."""
    workload = load(sys.argv[1])
    attention, rows = fastest(BENCHES[type(workload)](workload), options(workload))
    note = f"PyTorch with {attention} attention" + (f" in batches of {rows} rows" if rows else "")
    print(json.dumps({"attention": attention, "rows": rows, "note": f"{note}, the fastest it has"}))


if __name__ == "__main__":
    main()
