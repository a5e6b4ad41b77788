"""The command of a sweep in processes of its own, to look at and to kill."""

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
    """`python -m research.ablation` with the flags, in a process group of its own, where Ctrl-C works, even if these tests were started
    in the background, where it does not."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = ["env", "--default-signal=INT", sys.executable, "-m", "research.ablation", *flags]
    return subprocess.Popen(command, env=runs.environment(), cwd=runs.ROOT, process_group=0, **pipes | options)


def run(*flags: str) -> subprocess.CompletedProcess:
    """The same to its end."""
    with start(*flags) as process:
        out, errors = process.communicate()
    return subprocess.CompletedProcess(flags, process.returncode, out, errors)


def children(pid: int) -> list[int]:
    """The processes that this one started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            if int(stat.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    """Whether there is such a process, which has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def kill(*pids: int, by: signal.Signals = signal.SIGKILL) -> None:
    """Those of them that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, by)


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    """Raises TimeoutError where it does not come true."""
    end = time.monotonic() + seconds
    while not until():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)
