"""What is printed at the end of a run: how good, at what cost, and what to look at next."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from research import storage
from research.experiment import hints
from research.tasks.metrics import OF_ONE, shown, title
from research.tracking import writer

LISTED = 40  # above so many classes, those with the lowest f1


def summarise(result: dict[str, Any], workdir: Path, console: Console) -> None:
    """Print the tables and lines at the end of a run from its `result.json` and its files in `workdir`."""
    metric, speed, params = result["selection"]["metric"], result["speed"], result["params"]
    c = result["config"]
    name = f"{c['task']} ({c['data']['source']}) · {result['weights']['source']} · {c['method']} · seed {c['seed']}"
    for table in tables(result, name):
        console.print(table)
    positive = result["selection"].get("positive")
    best = title(metric, positive)
    console.print(
        f"kept step {result['selected_step']} (best dev {best}); trained {params['trainable']:,} of {params['total']:,} parameters "
        f"({params['checkpoint_bytes'] / 1e6:.1f} MB saved)"
    )
    rates = f"{speed['examples_per_s'] or 0:,.0f} examples/s, {speed['real_tokens_per_s'] or 0:,.0f} real tokens/s,"
    shares = f"{speed['padding_fraction'] or 0:.1%} padding, {speed['waiting_fraction'] or 0:.1%} waiting for data"
    memory = f"{speed['peak_memory_bytes'] / 2**30:.1f} GiB at most, {speed['compilations']} compilations"
    mfu = f", {speed['mfu']:.0%} MFU" if speed["mfu"] else ""
    console.print(f"{speed['step_flops'] / 1e9:.1f} GFLOP a step, {rates} {shares}, {memory}{mfu}")
    console.print(f"everything is in {workdir}: result.json, curves.png, confusion.png, predictions/, checkpoints/")
    predictions = workdir / "predictions" / "dev.jsonl"
    if predictions.exists():
        with predictions.open(encoding="utf8") as lines:
            rows = [storage.parse_json(line, str(predictions)) for line in lines]
        for hint in hints.hints(c, metric, positive, result["selected_step"], writer.read_metrics(workdir), rows):
            console.print(f"hint: {hint}")


def tables(result: Mapping[str, Any], name: str) -> list[Table]:
    """Return the tables of a `result.json`: the scores on dev and test, and, where it has them, those of each class on test."""
    return [_splits(result, name), *([_classes(result["classes"]["test"])] if "classes" in result else [])]


def _splits(result: Mapping[str, Any], name: str) -> Table:
    metric, positive = result["selection"]["metric"], result["selection"].get("positive")
    names = list(dict.fromkeys((*shown(positive), metric, "loss")))
    table = _table(name, "split", *(title(column, positive) for column in names))
    for split, scores in result["metrics"].items():
        table.add_row(split, *(f"{scores[column]:.4f}" for column in names))
    return table


def _classes(scores: Mapping[str, Mapping[str, float]]) -> Table:
    names, what = list(scores), "test, class by class"
    if len(names) > LISTED:
        names = sorted(names, key=lambda label: scores[label]["f1"])[:LISTED]
        what = f"test, the {LISTED} of {len(scores)} classes with the lowest f1"
    table = _table(what, "class", *OF_ONE, "examples")
    for label in names:
        table.add_row(Text(label), *(f"{scores[label][column]:.4f}" for column in OF_ONE), f"{scores[label]['support']:,}")
    return table


def _table(name: str, first: str, *others: str) -> Table:
    table = Table(title=Text(name), title_justify="left")
    table.add_column(first)
    for column in others:
        table.add_column(Text(column), justify="right")
    return table
