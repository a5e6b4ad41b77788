"""A sweep as one HTML page that needs neither network nor server: its table, plots, and how each of its runs is run again."""

import datetime
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from research.ablation.report import plots, tables
from research.ablation.runs import Run
from research.config import recorded
from research.tasks.metrics import title as metric_title

HERE = Path(__file__).parent
FILES = ("predictions/test.jsonl", "predictions/dev.jsonl", "curves.png", "metrics.jsonl", "result.json")
FACTS = ("task", "model", "method", "data.source", "data.path", "precision")


def html(runs: Sequence[Run], title: str, replay: Callable[[Run], str], question: str = "") -> str:
    """The page of `runs`, of which there is at least one; `replay` gives the command that runs one of them again, `question` is what the
    runs are to answer. The page is titled with task and model, too, where the runs share them, and has links into the runs' folders
    beside it.

    Everything is in it: the plots are Vega-Lite's, whose program (0.9 MB) is most of the page. The page's own policy forbids it to load
    or send anything.
    """
    import jinja2

    every = tables.settings(runs)
    shared, own = configs(runs)
    data = {
        "settings": plots.labels(every),
        "metric": plots.metric(every),
        "scores": plots.scores(every),
        "curves": plots.curves(every),
        "best": plots.expected_best(every),
        "shared": shared,
        "own": own,
    }
    tidy = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, **tidy)
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    header, *lines = tables.rows(runs)
    names = len(header) - len(tables.COLUMNS) - 1  # the page has them in one column
    return templates.get_template("page.html.jinja").render(
        title=" · ".join([title, *(str(shared[name]) for name in ("task", "model") if shared.get(name))]),
        question=question,
        date=datetime.date.today(),
        facts=_facts(runs, shared),
        counts=Counter(run.status for run in runs),
        columns=header[names:],
        settings=[(name, one, line[names:]) for name, one, line in zip(data["settings"], every, lines, strict=True)],
        notes=tables.notes(runs).strip().split("\n\n"),
        runs=[(run, replay(run), _score(run), [name for name in FILES if (run.folder / name).exists()]) for run in runs],
        data=data,
        vega=plotter(),
        style=(HERE / "page.css").read_text(encoding="utf8"),
        script=(HERE / "page.js").read_text(encoding="utf8"),
    )


@functools.cache
def plotter() -> str:
    """The program that draws the plots: Vega-Lite, for a script element. It takes a second or two to make."""
    import vl_convert

    return vl_convert.javascript_bundle()


def configs(runs: Sequence[Run]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """The fields that all runs share, and for each run the others: dotted name -> value as Python writes it. Together, its config."""
    every = [{name: _written(value) for name, value in recorded.flat(run.config.to_dict()).items()} for run in runs]
    shared = {name: value for name, value in every[0].items() if all(one.get(name) == value for one in every)}
    return shared, [{name: value for name, value in one.items() if name not in shared} for one in every]


def _facts(runs: Sequence[Run], shared: dict[str, str]) -> dict[str, str]:
    """What the page says at its head of all runs: fields they share, and on what the first that finished ran."""
    environment = next((run.result.get("environment") for run in runs if run.result), None) or {}
    facts = {name: shared.get(name) for name in FACTS} | {name: environment.get(name) for name in ("python", "jax")}
    facts["devices"] = ", ".join(sorted(set(environment.get("devices", ()))))
    return {name: value for name, value in facts.items() if value}


def _written(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _score(run: Run) -> str:
    if not run.result:
        return ""
    metric, positive = run.result["selection"]["metric"], run.result["selection"].get("positive")
    return f"test {metric_title(metric, positive)} {100 * run.result['metrics']['test'][metric]:.1f}"
