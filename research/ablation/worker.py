"""A process that trains runs of a sweep, one task after the other, as `pool` sends them.

Each line of standard input is a task: a JSON list of run ids. Several runs are trained together if that is faster. Each line of
standard output is a JSON object: a message in `say`, or `done` at the end of a task. The process exits when standard input ends.
"""

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from research import storage
from research.ablation import fleet, sweep
from research.ablation import runs as sweep_runs
from research.errors import InputError
from research.experiment import modes
from research.parallel import cpu
from research.tasks.selection import title


def main(path: str, workdir: Path, *changes: str) -> None:
    """Do tasks of the sweep `path` (a file and its words) in `workdir`. `changes` are config flags for the base of the sweep."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # output printed by libraries goes to the log, not between the messages
    tasks: queue.Queue = queue.Queue()
    threading.Thread(target=_listen, args=(tasks,), daemon=True).start()
    modes.keep_programs()
    runs = sweep_runs.identify(sweep.configs(*sweep.load(path, changes)))

    def tell(**message: Any) -> None:
        print(json.dumps(message), file=out, flush=True)

    while task := tasks.get():
        do({run_id: runs[run_id] for run_id in task}, workdir, lambda text: tell(say=text))
        tell(done=True)


def _listen(tasks: queue.Queue) -> None:
    """Put the tasks of standard input into the queue. When standard input ends, the parent process has ended, so exit at once."""
    for line in sys.stdin:
        tasks.put(json.loads(line))
    os._exit(0)


def do(runs: dict[str, sweep_runs.RunSpec], workdir: Path, say: Callable[[str], None]) -> None:
    """Train the unfinished runs, together if that is faster, and report the result of each. A failed run leaves `error.txt`."""
    for run_id, outcome, seconds in fleet.run({run_id: config for run_id, (_, config) in runs.items()}, workdir, say):
        finish(workdir / run_id, sweep_runs.label(runs[run_id][0]), outcome, seconds, say)


def finish(folder: Path, label: str, result: dict[str, Any] | Exception, seconds: float, say: Callable[[str], None]) -> None:
    """Report the result of a run. Write `error.txt` if it failed."""
    if isinstance(result, Exception):
        folder.mkdir(parents=True, exist_ok=True)
        storage.write_text(folder / "error.txt", f"{_describe(result)}\n")
        say(f"{label}: failed: {_describe(result).splitlines()[0]}")
        return
    (folder / "error.txt").unlink(missing_ok=True)
    selection = result["selection"]
    say(f"{label}: test {title(selection)} {result['metrics']['test'][selection['metric']]:.4f}, {seconds:.1f} s")


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"


if __name__ == "__main__":
    cpu.prepare()
    try:
        main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
    except KeyboardInterrupt:
        sys.exit(130)
