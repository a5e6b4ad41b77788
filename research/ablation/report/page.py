"""A self-contained HTML page of a sweep: the results table, plots, and the command that trains each run again."""

import datetime
import functools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from research.ablation.report import plots, tables
from research.ablation.run import Run
from research.config import recorded
from research.tasks.selection import scale
from research.tasks.selection import title as metric_title

HERE = Path(__file__).parent
FILES = ("predictions/test.jsonl", "predictions/dev.jsonl", "curves.png", "metrics.jsonl", "result.json")
FACTS = ("task", "model", "method", "data.source", "data.path", "precision")


def html(runs: Sequence[Run], title: str, replay: Callable[[Run], str], question: str = "") -> str:
    """Return the page of at least one run. `replay` returns the command that trains a run again; `question` is the sweep's question.

    The title also has the task and the model if all runs share them. Links lead to files in the runs' folders, which lie beside the page.
    The page includes the Vega-Lite program (0.9 MB) that draws the plots, and its content security policy forbids it to load or send
    anything.
    """
    import jinja2

    settings = tables.settings(runs)
    shared, differing = configs(runs)
    data = {
        "settings": plots.labels(settings),
        "metric": plots.metric(settings),
        "scores": plots.scores(settings),
        "curves": plots.curves(settings),
        "best": plots.expected_best(settings),
        "shared": shared,
        "differing": differing,
    }
    options = {"undefined": jinja2.StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    templates = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True, **options)
    templates.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    header, *lines = tables.rows(runs)
    names = len(header) - len(tables.COLUMNS) - 1  # these columns become one column of the page
    return templates.get_template("page.html.jinja").render(
        title=" · ".join([title, *(str(shared[name]) for name in ("task", "model") if shared.get(name))]),
        question=question,
        date=datetime.date.today(),
        facts=_facts(runs, shared),
        counts=Counter(run.status for run in runs),
        columns=header[names:],
        settings=[(name, setting, line[names:]) for name, setting, line in zip(data["settings"], settings, lines, strict=True)],
        notes=tables.notes(runs).strip().split("\n\n"),
        runs=[(run, replay(run), _score(run), [name for name in FILES if (run.folder / name).exists()]) for run in runs],
        data=data,
        vega=plotter(),
        style=(HERE / "page.css").read_text(encoding="utf8"),
        script=(HERE / "page.js").read_text(encoding="utf8"),
    )


@functools.cache
def plotter() -> str:
    """Return the JavaScript of Vega-Lite for a script element. The first call takes a second or two."""
    import vl_convert

    return vl_convert.javascript_bundle()


def configs(runs: Sequence[Run]) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Return the config fields with the same value in all runs, and the other fields of each run: dotted name -> value as text."""
    flat = [{name: _to_text(value) for name, value in recorded.flat(run.config.to_dict()).items()} for run in runs]
    shared = {name: value for name, value in flat[0].items() if all(config.get(name) == value for config in flat)}
    return shared, [{name: value for name, value in config.items() if name not in shared} for config in flat]


def _facts(runs: Sequence[Run], shared: dict[str, str]) -> dict[str, str]:
    """Return the facts for the page's header: fields that all runs share, and the environment of the first finished run."""
    result = next((run.result for run in runs if run.result), {})
    environment, used = result.get("environment", {}), result.get("config", {})
    facts = {name: shared.get(name) for name in FACTS} | {name: environment.get(name) for name in ("python", "jax")}
    facts |= {"precision": used["precision"]} if "precision" in used and facts["precision"] else {}
    facts["devices"] = ", ".join(sorted(set(environment.get("devices", ()))))
    return {name: value for name, value in facts.items() if value}


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _score(run: Run) -> str:
    if not run.result:
        return ""
    selection = run.result["selection"]
    value = scale(selection) * run.result["metrics"]["test"][selection["metric"]]
    return f"test {metric_title(selection)} {value:.{1 if scale(selection) > 1 else 3}f}"
