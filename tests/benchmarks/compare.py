"""Speed and memory of research/ beside PyTorch `transformers`, on one CPU.

For each workload one process of Flax and one of PyTorch get ready one after the other; then they measure by turns, round by round,
each first in every other round, so that a machine that slows down or speeds up does so for both. The one that does not measure
sleeps. Flax runs the code of research/ as its runs do; PyTorch has its best honest configuration (bfloat16 autocast, the faster of
SDPA and eager attention, fused AdamW, batches of similar lengths) and the same huge pages. Leave the machine alone meanwhile.

    python -m tests.benchmarks.compare                     # everything, writes tests/benchmarks/RESULTS.md
    python -m tests.benchmarks.compare --only=train        # the two training steps; other rows of the page stay as they are
    python -m tests.benchmarks.compare --tiny --rounds=1   # does the harness work?
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks import results, workloads
from tests.benchmarks.protocol import Worker
from tests.benchmarks.workloads import WORKLOADS, Probe, Workload

ROOT = Path(__file__).parents[2]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "transformers")
BOTH = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "TRANSFORMERS_VERBOSITY": "error"}
# Threads that wait for work must not spin while the other side measures; XLA's sleep by themselves.
SIDES = {"flax_worker": {"JAX_PLATFORMS": "cpu"}, "peer": {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}}


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    listed = "\n".join(f"  {workloads.describe(workload)}" for workload in WORKLOADS.values())
    p = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.compare",
        description=__doc__,
        epilog=f"workloads:\n{listed}\n\nThe result is a Markdown table on standard output; what is going on goes to standard error.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("--rounds", type=int, default=5, help="rounds of each workload (5); the linear probe always has one, it takes minutes")
    p.add_argument("--only", default="", metavar="PATTERN", help="only workloads whose name has this regular expression in it")
    p.add_argument("--data", type=Path, default=ROOT / "../shared/data", help="where sst2/ and ag_news/ are (../shared/data)")
    p.add_argument(
        "--output",
        type=Path,
        default=ROOT / "tests/benchmarks/RESULTS.md",
        help="the page to write (tests/benchmarks/RESULTS.md); with --only, just those rows of it are replaced",
    )
    p.add_argument(
        "--peer-env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an environment variable for PyTorch, to see whether it does better; an empty VALUE removes it (OMP_WAIT_POLICY= lets its "
        "threads spin, which costs it dearly on a machine that is not quite idle)",
    )
    p.add_argument("--tiny", action="store_true", help="toy sizes, to try the harness out in a minute or two; writes no page")
    return p


def main() -> None:
    """Measure, print the table and write the page; end with one line and exit code 2 on an error."""
    args = parser().parse_args()
    try:
        run(args)
    except (ValueError, RuntimeError) as error:
        sys.exit(_complain(str(error)))


def _complain(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 2


def run(args: argparse.Namespace) -> None:
    """Measure the chosen workloads. The page is written after each workload, so that an interruption loses no finished one."""
    chosen, facts, sides = workloads.chosen(args.only), machine(), environments(args.peer_env)
    if args.rounds < 1:
        raise ValueError(f"--rounds={args.rounds}: at least one round is needed")
    if not args.output.resolve().parent.is_dir():
        raise ValueError(f"--output={args.output}: there is no such folder to write it to")
    rows, measured = rows_of_page(args.output, facts) if args.only and not args.tiny else {}, {}
    command, today = shlex.join(["python", "-m", "tests.benchmarks.compare", *sys.argv[1:]]), datetime.date.today().isoformat()
    with tempfile.TemporaryDirectory() as scratch:
        cache = f"{scratch}/cache"  # a new one, so that everything is compiled: part of the memory that is measured
        os.environ["RESEARCH_CACHE"] = sides["flax_worker"]["RESEARCH_CACHE"] = cache
        for workload in [prepare(workloads.tiny(w) if args.tiny else w, args.data.resolve(), Path(scratch)) for w in chosen]:
            flax, peer = measure(workload, args.rounds, sides)
            measured[workload.name] = results.row(workload.name, workload.unit, flax, peer, today)
            _say(measured[workload.name])
            if not args.tiny:
                write(args.output, results.compose(facts, f"{today}, `{command}`", rows | measured, WORKLOADS))
    print(results.table(measured, WORKLOADS), end="")


def rows_of_page(path: Path, facts: dict[str, str]) -> dict[str, str]:
    """Return the rows of the existing page. Raise ValueError if new ones are not comparable with them."""
    page = path.read_text() if path.exists() else ""
    try:
        results.check_conditions(page, facts)
        return results.rows_of(page)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def prepare(workload: Workload, data: Path, scratch: Path) -> Workload:
    """Return the workload with the folders of its examples and weights. Raise ValueError if they are missing."""
    if not hasattr(workload, "data"):
        return workload
    from research.errors import InputError
    from research.weights import hub

    try:
        weights = str(hub.find(workload.model))
    except InputError as error:
        raise ValueError(f"{workload.name}: {error}") from None
    source, complete = data / workload.data, isinstance(workload, Probe)
    workloads.find(source, "train")
    if not complete:
        workloads.draw(source, scratch / workload.data, workload.examples)
    return dataclasses.replace(workload, data=str(source if complete else scratch / workload.data), weights=weights)


def environments(extra: list[str]) -> dict[str, dict[str, str]]:
    """Return the environment of each side's workers. Raise ValueError for an `extra` that is not NAME=VALUE."""
    for setting in extra:
        if not setting.partition("=")[0] or "=" not in setting:
            raise ValueError(f"--peer-env={setting} is not NAME=VALUE")
    by_side = {side: os.environ | BOTH | variables for side, variables in SIDES.items()}
    by_side["peer"] = {name: value for name, value in (by_side["peer"] | dict(s.split("=", 1) for s in extra)).items() if value}
    return by_side


def measure(workload: Workload, rounds: int, environment: dict[str, dict[str, str]]) -> tuple[list[dict], list[dict]]:
    """Return the answers of Flax and of the peer, round by round."""
    rounds, answers = getattr(workload, "rounds", rounds), {"flax_worker": [], "peer": []}
    with workers(workload, environment) as pair:
        for k in range(rounds):
            for worker in pair if k % 2 == 0 else pair[::-1]:
                _say(f"{workload.name}: round {k + 1} of {rounds}, {worker.name}")
                answers[worker.name].append(worker.round(k))
    return answers["flax_worker"], answers["peer"]


@contextlib.contextmanager
def workers(workload: Workload, environment: dict[str, dict[str, str]]) -> Iterator[list[Worker]]:
    """Yield a ready worker of each side; they get ready one after the other, so neither disturbs the other's warming up."""
    with contextlib.ExitStack() as stack:
        pair = []
        for side, variables in environment.items():
            _say(f"{workload.name}: starting {side}")
            module = ["tests.benchmarks.commands", side] if isinstance(workload, Probe) else [f"tests.benchmarks.{side}"]
            command = [sys.executable, "-m", *module, workloads.dump(workload)]
            pair.append(stack.enter_context(Worker(side, command, variables)))
        yield pair


def machine() -> dict[str, str]:
    """Return what the numbers depend on: processor, memory, accelerator, versions."""
    info = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    info = {name.strip(): value.strip() for name, value in info.items()}
    units = [name for name in ("avx512_bf16", "amx_bf16") if name in info.get("flags", "").split()]
    total = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    return {
        "machine": f"{info.get('model name', platform.machine())} ({', '.join(units) or 'no bfloat16 unit'}), "
        f"{len(os.sched_getaffinity(0))} cores, {total:.0f} GiB of memory{_accelerator()}",
        "versions": ", ".join([f"Python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)]),
    }


def _accelerator() -> str:
    if not shutil.which("nvidia-smi"):
        return ""
    names = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True).stdout.split("\n")
    return "".join(f", {name}" for name in names if name)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def write_table(path: Path, title: str, how: str, table: list[str]) -> None:
    """Write a page with one table: `title`, what was done, on what machine, the lines of the table. Print these lines."""
    facts = [f"- {key}: {value}" for key, value in machine().items()]
    write(path, "\n".join([f"# {title}", "", how, "", *facts, "", *table]) + "\n")
    print("\n".join(table))


def write(path: Path, page: str) -> None:
    """Write the page atomically."""
    part = path.with_name(path.name + ".part")
    part.write_text(page)
    os.replace(part, path)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
