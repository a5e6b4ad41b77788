"""Processes that do a sweep's tasks, and what becomes of a task whose process dies."""

import json
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from research import process, whole


class Supervisor:
    """Hands tasks (lists of run ids) of the sweep in the file `path` to `jobs` workers, each with its share of the cores. Use it as a
    context: at its end the workers are stopped.

    A worker that dies is started again. Of its task, runs that were trained together are then tried one by one; one that was alone is
    marked with `error.txt`. `say` is told, from several threads, what there is to tell.
    """

    def __init__(self, path: str, workdir: Path, tasks: Iterable[list[str]], jobs: int, say: Callable[[str], None]):
        self._path, self._workdir, self._tasks, self._say = path, workdir, deque(tasks), say
        self._stopped, self._workers = False, {}
        self._threads = [threading.Thread(target=self._serve, args=one) for one in enumerate(process.shares(jobs))]

    def __enter__(self) -> "Supervisor":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        for worker in list(self._workers.values()):
            worker.kill()
        for thread in self._threads:
            thread.join()

    def wait(self, seconds: float) -> bool:
        """Waits for a while; whether all is done."""
        for thread in self._threads:
            thread.join(seconds / len(self._threads))
        return not any(thread.is_alive() for thread in self._threads)

    def _serve(self, number: int, cores: set[int]) -> None:
        process.keep_to(cores)  # this thread, and what it starts
        log = self._workdir / f"worker-{number}.log"
        while self._tasks and not self._stopped:
            task = self._tasks.popleft()
            worker = self._workers.get(number) or self._start(number, log)
            if not self._done(worker, task):
                code = self._workers.pop(number).wait()
                if not self._stopped:
                    self._mourn(task, code, log)
        if worker := self._workers.pop(number, None):
            worker.stdin.close()
            worker.wait()

    def _start(self, number: int, log: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "research.ablation.worker", self._path, str(self._workdir)]
        pipe = subprocess.PIPE
        with log.open("a") as errors:
            self._workers[number] = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, text=True)
        return self._workers[number]

    def _done(self, worker: subprocess.Popen, task: list[str]) -> bool:
        """Whether the worker has done the task; else it has died."""
        try:
            print(json.dumps(task), file=worker.stdin, flush=True)
        except BrokenPipeError:
            return False
        for line in worker.stdout:
            message = json.loads(line)
            if "done" in message:
                return True
            self._say(message["say"])
        return False

    def _mourn(self, task: list[str], code: int, log: Path) -> None:
        left = [run_id for run_id in task if not (self._workdir / run_id / "result.json").exists()]
        why = f"its process ended with exit code {code}; the end of {log} may say why"
        if code < 0:
            name = signal.Signals(-code).name
            why = f"its process was killed ({name}){', most likely for want of memory' if name == 'SIGKILL' else ''}"
        if len(task) > 1:
            self._say(f"{len(left)} runs together: {why}; now one by one")
            self._tasks.extendleft([run_id] for run_id in reversed(left))
            return
        for run_id in left:
            whole.write_text(self._workdir / run_id / "error.txt", f"{why}\n")
            self._say(f"{run_id}: failed: {why}")
