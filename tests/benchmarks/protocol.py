"""The protocol of `compare` and its workers: JSON lines over the worker's standard input and output."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable


def serve(measure: Callable[[int], dict]) -> None:
    """Serve a warm worker: print that it is ready, then answer {"round": k} until the input ends.

    `measure(k)` does round k to its end and returns at least {"work": how much it was}; what else it returns (a "note", its own
    "seconds") goes along and goes first. While it waits, a worker only reads.
    """
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers
    print(json.dumps({"ready": True}), file=channel, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        answer = measure(json.loads(line)["round"])
        seconds = time.perf_counter() - start
        print(json.dumps({"seconds": seconds, "peak_memory_bytes": peak_memory(), **answer}), file=channel, flush=True)


def peak_memory() -> int:
    """Return the most bytes that this process had resident so far."""
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024


class Worker:
    """The other side: a process that measures one workload. Made ready on construction; a context manager that ends it."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]):
        self.name = name
        self._process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self._answer()
        except BaseException:
            self.close()
            raise

    def round(self, number: int) -> dict:
        """Return the worker's answer to a round. Raise RuntimeError if it ended instead."""
        try:
            print(json.dumps({"round": number}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            pass  # the answer that does not come says it
        return self._answer()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: the worker ended with exit code {self._process.wait()}; see above")
        return json.loads(line)

    def close(self) -> None:
        """End the process: close its input, and kill it if it does not end."""
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_) -> None:
        self.close()
