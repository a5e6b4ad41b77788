"""From answers to a table, and from a table to a page that can be updated row by row. Pure functions, which import nothing of research/."""

from collections.abc import Iterable
from statistics import median

RATES = ("examples/s",)  # units in which more is better: work by seconds; the others are seconds by work
HEAD = (
    "| workload | Flax: median (min-max) | PyTorch: median (min-max) | ratio of the two | peak memory, Flax / PyTorch | measured | notes |",
    "|---|---|---|---|---|---|---|",
)
EXPLANATION = """\
Written by `python -m tests.benchmarks.compare`; `--help` says what is measured and how. A ratio above 1 means that Flax is faster: it
is the median (and range) of the ratios of neighbouring rounds. A ratio of memory below 1 means that Flax needs less; peak memory is
the most that the process had resident (VmHWM), compiling included. Both sides compute in bfloat16 with float32 parameters, on the same
cores, by turns, with huge pages for large allocations (`GLIBC_TUNABLES=glibc.malloc.hugetlb=1`, which runs of research/ set for themselves
and which PyTorch is given too). PyTorch is `transformers` with autocast, the faster of SDPA and eager attention, fused AdamW and
threads that sleep while they wait; texts come in batches of similar lengths, padded to their longest."""


def number(x: float) -> str:
    """Return three significant digits, or all digits before the point."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:#.3g}"


def spread(values: Iterable[float], unit: str = "") -> str:
    """Return median and range, or the value alone if there is one."""
    values = sorted(values)
    extremes = f" ({number(values[0])}-{number(values[-1])})" if len(values) > 1 else ""
    return f"{number(median(values))}{' ' * bool(unit)}{unit}{extremes}"


def memory(flax: list[dict], peer: list[dict]) -> str:
    """Return the MiB of both sides and Flax's as a multiple of the peer's."""
    a, b = (max(answer["peak_memory_bytes"] for answer in answers) / 2**20 for answers in (flax, peer))
    return f"{a:,.0f} / {b:,.0f} MiB, {a / b:.2f}"


def row(name: str, unit: str, flax: list[dict], peer: list[dict], date: str) -> str:
    """Return the line of a workload. The answers of a round stand in the same place of `flax` and `peer`."""

    def value(answer: dict) -> float:
        return answer["work"] / answer["seconds"] if unit in RATES else answer["seconds"] / answer["work"]

    def cost(answer: dict) -> float:
        return answer["seconds"] / answer["work"]

    ratios = [cost(b) / cost(a) for a, b in zip(flax, peer, strict=True)]
    notes = "; ".join(filter(None, (answers[-1].get("note", "") for answers in (flax, peer))))
    cells = name, spread(map(value, flax), unit), spread(map(value, peer), unit), spread(ratios), memory(flax, peer), date, notes
    if any("|" in cell or "\n" in cell for cell in cells):
        raise ValueError(f"{name}: a cell of the table has a bar or a line break in it: {cells}")
    return f"| {' | '.join(cells)} |"


def table(rows: dict[str, str], order: Iterable[str]) -> str:
    """Return the table of `rows` (workload -> line) in `order`; workloads that are no longer known come last."""
    order = [*(name for name in order if name in rows), *(name for name in rows if name not in order)]
    return "\n".join([*HEAD, *(rows[name] for name in order)]) + "\n"


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of a page by workload. Raise ValueError if its table has other columns than `HEAD`."""
    if not page:
        return {}
    lines = [line for line in page.splitlines() if line.startswith("|")]
    if tuple(lines[:2]) != HEAD:
        raise ValueError("its table has other columns; measure everything again, without --only")
    return {line.split("|")[1].strip(): line for line in lines[2:]}


def conditions(facts: dict[str, str]) -> str:
    """Return the lines that state where and with what the rows were measured."""
    return "\n".join(f"- {name}: {value}" for name, value in facts.items())


def check_conditions(page: str, facts: dict[str, str]) -> None:
    """Raise ValueError if the rows of `page` were measured under other `facts`: rows of one table must be comparable."""
    there = page.splitlines()
    for name, value in facts.items():
        if page and f"- {name}: {value}" not in there:
            was = next((line for line in there if line.startswith(f"- {name}: ")), f"- {name}: unknown")
            raise ValueError(f"its rows were measured under another {was[2:]} (now {value}); measure everything again, without --only")


def compose(facts: dict[str, str], latest: str, rows: dict[str, str], order: Iterable[str]) -> str:
    """Return a page; `latest` is the date and the command of the latest rows."""
    parts = ["# Speed and memory beside PyTorch", EXPLANATION, conditions(facts | {"latest rows": latest})]
    return "\n\n".join([*parts, table(rows, order)])
