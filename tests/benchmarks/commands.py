"""The worker for whole commands: `python -m tests.benchmarks.commands flax_worker|peer WORKLOAD`. Started by `compare`.

It imports nothing heavy, because a process is charged with the memory of the one that started it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks import protocol
from tests.benchmarks.workloads import Probe, load


def timed(command: list[str], environment: dict[str, str]) -> tuple[float, int, str]:
    """Return seconds, peak memory in bytes and standard output of a command. Raise RuntimeError if it fails."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds, process.returncode = time.perf_counter() - start, os.waitstatus_to_exitcode(status)
        for file in (out, errors):
            file.seek(0)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}\n{errors.read().decode()[-2000:]}")
        return seconds, usage.ru_maxrss * 1024, out.read().decode()


def flax_worker(w: Probe) -> dict:
    """Run the main command in a new workdir twice: with an empty cache, then with the cache that the first run filled."""
    words = f"model={w.model},data=files,method=linear_probe"
    changes = {"total_epochs": w.epochs, "data.path": w.data, "max_length": w.max_length, "batch_size": w.batch_size}
    flags = [f"--config=configs/{w.config}.py:{words}", *(f"--config.{name}={value}" for name, value in changes.items())]
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}  # main.py sets it itself
        environment |= {"RESEARCH_CACHE": f"{folder}/cache"}
        measured = {}
        for name in ("cold", "warm"):
            command = [sys.executable, "-m", "research.main", *flags, f"--workdir={folder}/{name}"]
            measured[name] = timed(command, environment)
        result = json.loads((Path(folder) / "cold" / "result.json").read_text())
    seconds, memory, _ = measured["cold"]
    note = f"Flax with a warm cache {measured['warm'][0]:.1f} s; test accuracy {result['metrics']['test']['accuracy']:.4f}"
    return {"work": 1, "seconds": seconds, "peak_memory_bytes": memory, "note": note}


def peer(w: Probe) -> dict:
    """Run the peer's script."""
    seconds, memory, output = timed([sys.executable, "-m", "tests.benchmarks.peer_probe", sys.argv[2]], dict(os.environ))
    note = f"PyTorch's test accuracy {json.loads(output)['accuracy']:.4f}"
    return {"work": 1, "seconds": seconds, "peak_memory_bytes": memory, "note": note}


SIDES: dict[str, Callable[[Probe], dict]] = {"flax_worker": flax_worker, "peer": peer}


def main() -> None:
    """Serve the workload on the command line."""
    side, workload = SIDES[sys.argv[1]], load(sys.argv[2])
    protocol.serve(lambda _: side(workload))


if __name__ == "__main__":
    main()
