"""Start the sweep command in a subprocess, and inspect and kill its processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests import runs

TINY = "tests/ablation/tiny.py"


def start(*flags: str, **options) -> subprocess.Popen:
    """Start `python -m research.ablation` with the flags in a new process group.

    `env` restores the default handling of SIGINT, which a shell disables for processes that it starts in the background."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = ["env", "--default-signal=INT", sys.executable, "-m", "research.ablation", *flags]
    return subprocess.Popen(command, env=runs.environment(), cwd=runs.ROOT, process_group=0, **pipes | options)


def run(*flags: str) -> subprocess.CompletedProcess:
    """Run the command as `start` does, and wait for its end."""
    with start(*flags) as process:
        out, errors = process.communicate()
    return subprocess.CompletedProcess(flags, process.returncode, out, errors)


def children(pid: int) -> list[int]:
    """Return the process ids of the children of `pid`."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # the process has just ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                pids.append(int(stat.parent.name))
    return pids


def alive(pid: int) -> bool:
    """Return whether the process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(*pids: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Send the signal `by` to the processes; ignore processes that no longer exist."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, by)


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until the condition `until` holds. Raises TimeoutError after `seconds`."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
