"""A pool of worker processes that train a sweep's tasks, and the handling of tasks whose worker dies."""

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
    """Distribute tasks (lists of run ids) of a sweep to `jobs` worker processes, each pinned to an equal share of the CPU cores.

    `path` is the sweep's file and `changes` are arguments that change its base config. Use the supervisor as a context manager; leaving
    the context kills the workers.

    A worker that dies is started again. A task of several runs is first retried as a whole; if its worker dies again, its runs are
    tried one by one. A run whose worker dies while it trains alone gets an `error.txt`. `say` receives the progress messages, from several
    threads.
    """

    command = sys.executable, "-m", "research.ablation.worker"

    def __init__(
        self, path: str, workdir: Path, tasks: Iterable[list[str]], jobs: int, say: Callable[[str], None], changes: Iterable[str] = ()
    ):
        self._workdir, self._tasks, self._say, self._arguments = workdir, deque(tasks), say, (path, str(workdir), *changes)
        self._stopped, self._workers, self._retried, self._lock = False, {}, set(), threading.Lock()
        self._shares, self._pool = cpu.shares(jobs), futures.ThreadPoolExecutor(jobs)

    def __enter__(self) -> "Supervisor":
        self._threads = [self._pool.submit(self._serve, *numbered) for numbered in enumerate(self._shares)]
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._stopped = True
            for worker in self._workers.values():
                worker.kill()
        self._pool.shutdown()

    def wait(self, seconds: float) -> bool:
        """Wait for at most `seconds` and return whether all tasks are done. Raises exceptions of the supervisor's own threads."""
        done, pending = futures.wait(self._threads, seconds, futures.FIRST_EXCEPTION)
        for thread in done:
            thread.result()
        return not pending

    def _serve(self, number: int, cores: set[int]) -> None:
        """Run tasks in worker `number` until no task is left."""
        cpu.keep_to(cores)  # applies to this thread and to the processes it starts
        log = self._workdir / f"worker-{number}.log"
        while task := self._next_task():
            worker = self._workers.get(number) or self._start_worker(number, log)
            if worker and not self._run_task(worker, task):
                code = self._close_worker(number)
                if not self._stopped:
                    self._handle_worker_death(task, code, log)
        if number in self._workers:
            self._close_worker(number)

    def _next_task(self) -> list[str] | None:
        with self._lock:
            return self._tasks.popleft() if self._tasks and not self._stopped else None

    def _start_worker(self, number: int, log: Path) -> subprocess.Popen | None:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with log.open("a") as errors, self._lock:
            if self._stopped:
                return None
            # In a separate process group Ctrl-C reaches only the supervisor; otherwise an interrupted worker would look like a failed run.
            self._workers[number] = subprocess.Popen([*self.command, *self._arguments], stderr=errors, process_group=0, **pipes)
            return self._workers[number]

    def _close_worker(self, number: int) -> int:
        """Close the worker's pipes, wait until the worker has exited and return its exit code."""
        with contextlib.suppress(BrokenPipeError), self._workers[number] as worker:  # leaving the context closes the pipes and waits
            pass
        with self._lock:
            del self._workers[number]
        return worker.returncode

    def _run_task(self, worker: subprocess.Popen, task: list[str]) -> bool:
        """Send the task to the worker and return True when the worker reports it done, False if the worker dies first."""
        try:
            print(json.dumps(task), file=worker.stdin, flush=True)
        except BrokenPipeError:
            return False
        for line in worker.stdout:
            if not line.endswith("\n"):
                break  # the worker died while writing this line
            message = json.loads(line)
            if "done" in message:
                return True
            self._say(message["say"])
        return False

    def _handle_worker_death(self, task: list[str], code: int, log: Path) -> None:
        """Requeue the unfinished runs of a task of several runs, or mark a single run as failed."""
        unfinished = [run_id for run_id in task if not (self._workdir / run_id / "result.json").exists()]
        reason = f"its process ended with exit code {code}; see the end of {log}"
        if code < 0:
            name = signal.Signals(-code).name
            reason = f"its process was killed ({name}){', probably because memory ran out' if name == 'SIGKILL' else ''}"
        if len(task) > 1 and unfinished:
            first = tuple(task) not in self._retried
            self._retried.add(tuple(task))
            self._tasks.extendleft([task] if first else [[run_id] for run_id in reversed(unfinished)])
            self._say(f"{len(unfinished)} runs trained together: {reason}; retrying them {'together' if first else 'one by one'}")
            return
        for run_id in unfinished:
            storage.write_text(self._workdir / run_id / "error.txt", f"{reason}\n")
            self._say(f"{run_id}: failed: {reason}")
