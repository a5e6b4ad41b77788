"""Measure the time that a fleet saves: a sweep over seeds as one program, beside the same runs one after the other.

    python -m tests.benchmarks.fleet --data=../shared/data/trec6          # writes tests/benchmarks/FLEET.md

Three ways, whole commands, each with its programs compiled before: `research.ablation`; `research.ablation --nofleets`, which does
the runs one after the other in one process; and `research.main`, once for each run (three are timed, the rest reckoned).
Leave the machine alone meanwhile. The page has a section for each machine and number of examples; other sections stay as they are.
"""

import argparse
import datetime
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import compare
from tests.benchmarks.commands import timed

METHODS = ("linear_probe", "lora")
PAGE = Path(__file__).with_name("FLEET.md")
TITLE = "# What a fleet saves\n\nSweeps over seeds of MiniLM on TREC-6, whole commands: `python -m tests.benchmarks.fleet`.\n"
HEAD = """| method | as a fleet | one after the other | of the fleet's | as commands of their own | of the fleet's |
|---|---|---|---|---|---|
"""
SWEEP = """
from research.ablation import sweep as sweeps
from research.config import fields

def base(arg=""):
    c = fields.base("trec", fields.words("", model="minilm", data="files"))
    c.data.path, c.method, c.max_length, c.parallel = {data!r}, {method!r}, 64, "auto"
    return fields.override(c, {{"total_examples": {examples}, "eval_percent": 50.0}})

def sweep(arg=""):
    return sweeps.seeds({seeds})
"""


def seconds(method: str, args: argparse.Namespace, folder: Path) -> tuple[float, float, float]:
    """Return the seconds of the sweep as a fleet, run by run in one process, and run by run in separate processes."""
    data = str(Path(args.data).resolve())
    sweep = folder / f"{method}.py"
    sweep.write_text(SWEEP.format(data=data, method=method, examples=args.examples, seeds=args.seeds))
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}  # the programs set it themselves

    def run(module: str, *flags: str) -> float:
        return timed([sys.executable, "-m", f"research.{module}", *flags], environment)[0]

    def ablation(*flags: str) -> float:
        shutil.rmtree(folder / "sweep", ignore_errors=True)
        return run("ablation", f"--config={sweep}", f"--workdir={folder / 'sweep'}", *flags)

    def command(seed: int) -> float:
        changes = {"seed": seed, "data.path": data, "max_length": 64, "total_examples": args.examples, "eval_percent": 50.0}
        flags = [f"--config.{name}={value}" for name, value in changes.items()]
        config = f"--config=configs/trec.py:model=minilm,data=files,method={method}"
        return run("main", config, *flags, f"--workdir={folder / method / str(seed)}")

    ablation(), ablation("--nofleets", "--only=seed=0$"), command(args.seeds)  # so that nothing is compiled below
    # A command before, between and after the others: a machine's speed drifts.
    first, fleet, second, process, third = command(0), ablation(), command(1), ablation("--nofleets"), command(2)
    return fleet, process, (first + second + third) / 3 * args.seeds


def with_section(page: str, heading: str, body: str) -> str:
    """Return the page with a new section of that heading first, and the other sections unchanged."""
    others = [part for part in page.split("\n## ")[1:] if not part.startswith(f"{heading}\n")]
    return "\n## ".join([TITLE, f"{heading}\n\n{body}", *others])


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.fleet", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--data", default="../shared/data/trec6", help="a folder with TREC-6")
    parser.add_argument("--seeds", type=int, default=16)
    parser.add_argument("--examples", type=int, default=8192, help="that each run trains on")
    args = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for method in METHODS:
            fleet, process, commands = seconds(method, args, Path(folder))
            cells = f"{fleet:.0f} s", f"{process:.0f} s", f"{process / fleet:.1f}", f"{commands:.0f} s", f"{commands / fleet:.1f}"
            lines.append(f"| `{method}` | {' | '.join(cells)} |\n")
            print(lines[-1], end="", flush=True)
    facts = compare.machine()
    heading = f"{args.seeds} runs of {args.examples:,} examples: {facts['machine']}"
    how = f"{datetime.date.today()}, `--seeds={args.seeds} --examples={args.examples}`; {facts['versions']}."
    compare.write(PAGE, with_section(PAGE.read_text(), heading, f"{how}\n\n{HEAD}{''.join(lines)}"))


if __name__ == "__main__":
    main()
