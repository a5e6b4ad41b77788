"""What can be chosen, for people to read: `--list=tasks|models|methods|configs|fields`."""

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterable

from research.config import durations, files, options, ranges
from research.config import fields as config_fields
from research.config.fields import base, field_names, words

Row = tuple[str, ...]


def text(what: str) -> str:
    """Return the list called `what`, one of `LISTS`, a line for each thing."""
    rows = list(LISTS[what]())
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def fields() -> Iterable[Row]:
    """Yield every field of a config: its name, its default before a config file or a method says otherwise, and what it is."""
    c = base("custom", words(""))
    said = comments()
    for name in field_names(c):
        owner, _, field = name.rpartition(".")
        value = (c[owner] if owner else c)[field]
        yield name, "" if value is None else repr(value), said.get(name) or said.get(owner, "")


def comments() -> dict[str, str]:
    """Return field -> comment, as the source of the configs has them behind (or, where they are long, before) an assignment."""
    found: dict[str, str] = {}
    for module in (config_fields, options):
        source = inspect.getsource(module)
        there = {t.start[0]: t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign) and node.end_lineno in there:
                for name in ast.unparse(node.targets[0]).strip("()").split(", "):
                    if name.startswith("c."):
                        found.setdefault(name.removeprefix("c."), there[node.end_lineno].lstrip("# "))
    found |= {f"dora.{name}": comment for name, comment in _inner("lora", found).items()}
    for duration, comment in ranges.DURATIONS.items():
        found |= {f"{duration}_{unit}": f"{comment} (one unit alone may be given)" for unit in durations.UNITS}
    return found


def _inner(owner: str, found: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(f"{owner}."): comment for name, comment in found.items() if name.startswith(f"{owner}.")}


def tasks() -> Iterable[Row]:
    """Yield the tasks: name, text columns, classes, the metric that selects."""
    from research.tasks.catalog import TASKS

    for task in TASKS.values():
        yield task.name, " + ".join(task.texts), ", ".join(task.labels) or "classes of the training split", task.metric


def models() -> Iterable[Row]:
    """Yield the models that have a short name: name, and where it comes from."""
    from research.weights import hub

    yield from ((name, named.hub_id) for name, named in hub.NAMED.items())
    yield "tiny", "a made-up BERT for smoke runs"
    yield from ((name, "trained from nothing") for name in hub.BASELINES)
    yield "FOLDER or ORG/NAME", "by --config.weights.source=, of any family that the README lists"


def methods() -> Iterable[Row]:
    """Yield the methods: name, and the first line of its docstring."""
    from research.adapt.methods import METHODS

    yield from ((name, _first_line(method.__doc__)) for name, method in METHODS.items())


def ready() -> Iterable[Row]:
    """Yield the config files: the path that --config takes, and the first line of its docstring."""
    root = files.folder()
    for path in sorted([*root.glob("*.py"), *root.glob("ablations/*.py"), *root.glob("papers/*.py")]):
        if path.stem != "__init__":
            yield str(path.relative_to(root.parent)), _first_line(ast.get_docstring(ast.parse(path.read_text(encoding="utf8"))))


def _first_line(doc: str | None) -> str:
    return re.sub(r"\s+", " ", (doc or "").strip().split("\n\n")[0])


LISTS: dict[str, Callable[[], Iterable[Row]]] = {
    "tasks": tasks,
    "models": models,
    "methods": methods,
    "configs": ready,
    "fields": fields,
}
