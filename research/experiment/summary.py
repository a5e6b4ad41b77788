"""Summary printed at the end of a run: metrics, cost and hints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from research import storage
from research.experiment import hints
from research.tasks.metrics import OF_ONE
from research.tasks.selection import title
from research.tracking import writer

MAX_CLASSES = 40  # most classes in the table of classes; of more, those with the lowest f1 are listed


def summarise(result: dict[str, Any], workdir: Path, console: Console) -> None:
    """Print the summary of a run from `result`, the contents of its `result.json`, and its files in `workdir`."""
    selection, speed, params, c = result["selection"], result["speed"], result["params"], result["config"]
    name = f"{c['task']} ({c['data']['source']}) · {result['weights']['source']} · {c['method']} · seed {c['seed']}"
    for table in tables(result, name):
        console.print(table)
    console.print(
        f"kept step {result['selected_step']} (best dev {title(selection)}); "
        f"trained {params['trainable']:,} of {params['total']:,} parameters ({params['checkpoint_bytes'] / 1e6:.1f} MB saved)"
    )
    rates = f"{speed['examples_per_s'] or 0:,.0f} examples/s, {speed['real_tokens_per_s'] or 0:,.0f} real tokens/s,"
    shares = f"{speed['padding_fraction'] or 0:.1%} padding, {speed['waiting_fraction'] or 0:.1%} waiting for data"
    memory = f"{speed['peak_memory_bytes'] / 2**30:.1f} GiB at most, {speed['compilations']} compilations"
    mfu = f", {speed['mfu']:.0%} MFU" if speed["mfu"] else ""
    console.print(f"{speed['step_flops'] / 1e9:.1f} GFLOP a step, {rates} {shares}, {memory}{mfu}")
    files = [name for name in ("result.json", "curves.png", "confusion.png") if (workdir / name).exists()]
    console.print(f"everything is in {workdir}: {', '.join(files)}, predictions/, checkpoints/")
    predictions = workdir / "predictions" / "dev.jsonl"
    if predictions.exists():
        with predictions.open(encoding="utf8") as lines:
            rows = [storage.parse_json(line, str(predictions)) for line in lines]
        for hint in hints.hints(c, selection, result["selected_step"], writer.read_metrics(workdir), rows):
            console.print(f"hint: {hint}")


def tables(result: Mapping[str, Any], name: str) -> list[Table]:
    """Return the tables of a `result.json`: the metrics on dev and test and, if it has them, those of each class on test."""
    return [_splits(result, name), *([_classes(result["classes"]["test"])] if "classes" in result else [])]


def _splits(result: Mapping[str, Any], name: str) -> Table:
    selection = result["selection"]
    titles = selection.get("titles", {selection["metric"]: title(selection)}) | {"loss": "loss"}
    table = _table(name, "split", *titles.values())
    for split, scores in result["metrics"].items():
        table.add_row(split, *(f"{scores[column]:.4f}" for column in titles))
    return table


def _classes(scores: Mapping[str, Mapping[str, float]]) -> Table:
    names, heading = list(scores), "test, class by class"
    if len(names) > MAX_CLASSES:
        names = sorted(names, key=lambda label: scores[label]["f1"])[:MAX_CLASSES]
        heading = f"test, the {MAX_CLASSES} of {len(scores)} classes with the lowest f1"
    table = _table(heading, "class", *OF_ONE, "examples")
    for label in names:
        table.add_row(Text(label), *(f"{scores[label][column]:.4f}" for column in OF_ONE), f"{scores[label]['support']:,}")
    return table


def _table(name: str, first: str, *others: str) -> Table:
    table = Table(title=Text(name), title_justify="left")
    table.add_column(first)
    for column in others:
        table.add_column(Text(column), justify="right")
    return table
