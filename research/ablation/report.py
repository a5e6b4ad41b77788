"""From finished runs to a table: one line for each setting, mean and standard deviation over its seeds."""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from research.ablation.sweep import Overrides

COLUMNS = ("test", "dev", "trainable parameters", "training s", "training TFLOP", "relative to the first")


def table(found: Sequence[tuple[Overrides, dict[str, Any] | None, str]]) -> str:
    """Markdown. The metric is each task's own; a single run has no standard deviation, and says so by its n."""
    groups: dict[tuple[tuple[str, Any], ...], list[tuple[dict[str, Any] | None, str]]] = {}
    for overrides, result, error in found:
        setting = tuple((name, value) for name, value in overrides.items() if name != "seed")
        groups.setdefault(setting, []).append((result, error))
    names = list(dict.fromkeys(name for setting in groups for name, _ in setting))
    lines = [f"| {' | '.join([*names, 'n', *COLUMNS])} |", "|" + "---|" * (len(names) + 1 + len(COLUMNS))]
    first = 0.0
    for number, (setting, runs) in enumerate(groups.items()):
        done = [result for result, _ in runs if result]
        errors = sorted({error for _, error in runs if error})
        if number == 0 and done:
            first = mean(result["speed"]["train_flops"] for result in done)
        values = dict(setting)
        cells = [str(values.get(name, "")) for name in names] + [f"{len(done)} of {len(runs)}" if len(done) < len(runs) else str(len(done))]
        lines.append(f"| {' | '.join([*cells, *(_cells(done, first) if done else ['; '.join(errors) or 'not run'] + [''] * 5)])} |")
    return "\n".join(lines) + "\n"


def _cells(done: Sequence[dict[str, Any]], first: float) -> list[str]:
    def score(split: str) -> str:
        values = [100 * result["metrics"][split][result["selection"]["metric"]] for result in done]
        return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")

    flops = mean(result["speed"]["train_flops"] for result in done)
    return [
        score("test"),
        score("dev"),
        f"{done[0]['params']['trainable']:,}",
        f"{mean(result['speed']['train_s'] for result in done):.0f}",
        f"{flops / 1e12:.1f}",
        f"{flops / first:.2f}" if first else "",
    ]
