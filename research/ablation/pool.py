"""Processes that do a sweep's tasks, and what becomes of a task whose process dies."""

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from concurrent import futures
from pathlib import Path

from research import storage
from research.parallel import cpu


class Supervisor:
    """Hands tasks (lists of run ids) of the sweep in the file `path`, with `changes` of its base, to `jobs` workers, each with its share
    of the cores. Use it as a context: at its end the workers are stopped.

    A worker that dies is started again. Runs that were trained together then go on together, and are tried one by one where their
    worker dies once more; one that was alone is marked with `error.txt`. `say` is told, from several threads, what there is to tell.
    """

    command = sys.executable, "-m", "research.ablation.worker"

    def __init__(
        self, path: str, workdir: Path, tasks: Iterable[list[str]], jobs: int, say: Callable[[str], None], changes: Iterable[str] = ()
    ):
        self._workdir, self._tasks, self._say, self._arguments = workdir, deque(tasks), say, (path, str(workdir), *changes)
        self._stopped, self._workers, self._died, self._lock = False, {}, set(), threading.Lock()
        self._shares, self._pool = cpu.shares(jobs), futures.ThreadPoolExecutor(jobs)

    def __enter__(self) -> "Supervisor":
        self._serving = [self._pool.submit(self._serve, *one) for one in enumerate(self._shares)]
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._workers.values():
                worker.kill()
        self._pool.shutdown()

    def wait(self, seconds: float) -> bool:
        """Waits for a while; whether all is done. Raises what went wrong here, not in a worker."""
        ended, going = futures.wait(self._serving, seconds, futures.FIRST_EXCEPTION)
        for one in ended:
            one.result()
        return not going

    def _serve(self, number: int, cores: set[int]) -> None:
        cpu.keep_to(cores)  # this thread, and what it starts
        log = self._workdir / f"worker-{number}.log"
        while task := self._next():
            worker = self._workers.get(number) or self._start(number, log)
            if worker and not self._done(worker, task):
                code = self._end(number)
                if not self._stopped:
                    self._handle_worker_death(task, code, log)
        if number in self._workers:
            self._end(number)

    def _next(self) -> list[str] | None:
        with self._lock:
            return self._tasks.popleft() if self._tasks and not self._stopped else None

    def _start(self, number: int, log: Path) -> subprocess.Popen | None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with log.open("a") as errors, self._lock:
            if self._stopped:
                return None
            # A group of its own: Ctrl-C is for us alone, or the worker's end could pass for a failure of its run.
            self._workers[number] = subprocess.Popen([*self.command, *self._arguments], stderr=errors, process_group=0, **pipes)
            return self._workers[number]

    def _end(self, number: int) -> int:
        """Lets the worker go, if it has not gone already; its exit code."""
        with contextlib.suppress(BrokenPipeError), self._workers[number] as worker:  # closes its pipes and waits
            pass
        with self._lock:
            del self._workers[number]
        return worker.returncode

    def _done(self, worker: subprocess.Popen, task: list[str]) -> bool:
        """Whether the worker has done the task; else it has died."""
        try:
            print(json.dumps(task), file=worker.stdin, flush=True)
        except BrokenPipeError:
            return False
        for line in worker.stdout:
            if not line.endswith("\n"):
                break  # it died while it spoke
            message = json.loads(line)
            if "done" in message:
                return True
            self._say(message["say"])
        return False

    def _handle_worker_death(self, task: list[str], code: int, log: Path) -> None:
        left = [run_id for run_id in task if not (self._workdir / run_id / "result.json").exists()]
        why = f"its process ended with exit code {code}; the end of {log} may say why"
        if code < 0:
            name = signal.Signals(-code).name
            why = f"its process was killed ({name}){', most likely for want of memory' if name == 'SIGKILL' else ''}"
        if len(task) > 1 and left:
            first = tuple(task) not in self._died
            self._died.add(tuple(task))
            self._tasks.extendleft([task] if first else [[run_id] for run_id in reversed(left)])
            self._say(f"{len(left)} runs together: {why}; now {'once more' if first else 'one by one'}")
            return
        for run_id in left:
            storage.write_text(self._workdir / run_id / "error.txt", f"{why}\n")
            self._say(f"{run_id}: failed: {why}")
