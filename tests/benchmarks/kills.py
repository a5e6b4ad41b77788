"""Compare a sweep that is killed repeatedly with one that is not.

    python -m tests.benchmarks.kills --runs=100 --kills=5

A sweep of tiny runs (tests/ablation/tiny.py) is done twice in new folders: undisturbed, and with SIGKILL at random moments to all its
processes, to the supervisor or to the worker. Where the supervisor was killed the same command is given again, at once; also where a
run failed because its worker was. Cells are equal where the parameters (sha256), the predictions and the curves are. The exit code is
1 where one is not, or where the sweep was over before it was killed so often.
"""

import argparse
import dataclasses
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.ablation import commands

WAYS = ("all", "supervisor", "worker")
FILES = ("predictions/dev.jsonl", "predictions/test.jsonl", "metrics.jsonl")


@dataclasses.dataclass
class Study:
    """A sweep of so many runs in `folder`; `starts` counts the commands given; of each kill: how much was done, and who was killed."""

    folder: Path
    runs: int
    steps: int
    starts: int = 0
    kills: list[tuple[float, str]] = dataclasses.field(default_factory=list)

    def start(self) -> subprocess.Popen:
        """Start the command of the sweep; its output goes to `log.txt`."""
        self.starts += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.txt").open("a") as log:
            flags = f"--config={commands.TINY}:runs={self.runs},steps={self.steps}", f"--workdir={self.folder}"
            return commands.start(*flags, stdout=log, stderr=log)

    def disturb(self, kills: int, lines: int, rng: random.Random) -> None:
        """Kill the sweep `kills` times, unless it ends before: each time after a further part of its `lines` and some seconds."""
        process = self.start()
        for number, part in enumerate(sorted(rng.uniform(0, 0.9) for _ in range(kills))):
            way = "worker" if number == kills // 2 else rng.choice(WAYS)
            while process.poll() is None and self.lines() < part * lines:
                time.sleep(0.05)
            time.sleep(rng.uniform(0, 3))
            workers = commands.children(process.pid)
            if process.poll() is not None:
                return
            self.kills.append((part, way))
            commands.kill(*(() if way == "worker" else (process.pid,)), *(() if way == "supervisor" else workers))
            if way != "worker":
                process.wait()
                process = self.start()
        process.wait()

    def lines(self) -> int:
        """Return the number of lines of all curves."""
        return sum(path.read_bytes().count(b"\n") for path in self.folder.glob("*/metrics.jsonl"))

    def finish(self) -> float:
        """Give the command until no run is left, three times at most. Return the seconds that it took."""
        begin = time.perf_counter()
        for _ in range(3):
            self.start().wait()
            if not list(self.folder.glob("*/error.txt")):
                break
        return time.perf_counter() - begin

    def cells(self) -> dict[str, tuple]:
        """Return run id -> all that has to be equal, of the finished runs."""
        finished = {}
        for path in self.folder.glob("*/result.json"):
            files = [(path.parent / name).read_bytes() for name in FILES]
            finished[path.parent.name] = json.loads(path.read_text())["params"]["sha256"], *files
        return finished


def compare(folder: Path, runs: int, steps: int, kills: int, seed: int) -> tuple[Study, dict[str, tuple], dict[str, tuple], float]:
    """Return the disturbed sweep, its cells, those of the undisturbed one, and the seconds that the undisturbed one took."""
    quiet, killed = Study(folder / "quiet", runs, steps), Study(folder / "killed", runs, steps)
    seconds = quiet.finish()
    killed.disturb(kills, quiet.lines(), random.Random(seed))
    killed.finish()
    return killed, killed.cells(), quiet.cells(), seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.kills", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=24, help="of each run")
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sweep, finished, expected, seconds = compare(Path(folder), **vars(args))
    equal = sum(finished.get(run_id) == cell for run_id, cell in expected.items())
    print("| runs | kills | when, and who | commands given | seconds undisturbed | cells present | cells equal |")
    print("|---|---|---|---|---|---|---|")
    what = ", ".join(f"{way} at {part:.0%}" for part, way in sweep.kills)
    print(f"| {len(expected)} | {len(sweep.kills)} | {what} | {sweep.starts} | {seconds:.0f} | {len(finished)} | {equal} |")
    sys.exit(not (equal == len(expected) == len(finished) and len(sweep.kills) == args.kills))


if __name__ == "__main__":
    main()
