"""Lists of the available choices: `--list=tasks|models|methods|configs|fields`."""

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterable

from research.config import durations, files, options
from research.config import fields as config_fields
from research.config.fields import base, field_names, words

Row = tuple[str, ...]


def text(what: str) -> str:
    """Return the list called `what`, a key of `LISTS`, as text with one line per entry."""
    rows = list(LISTS[what]())
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "".join("  ".join(map(str.ljust, row, widths)).rstrip() + "\n" for row in rows)


def fields() -> Iterable[Row]:
    """Yield every field of a config: its name, its default before a config file or a method changes it, and its description."""
    c = base("custom", words(""))
    descriptions = comments()
    for name in field_names(c):
        owner, _, field = name.rpartition(".")
        value = (c[owner] if owner else c)[field]
        yield name, "" if value is None else repr(value), descriptions.get(name) or descriptions.get(owner, "")


def comments() -> dict[str, str]:
    """Return field -> comment, from the comments on the assignments in the source of the config modules."""
    result: dict[str, str] = {}
    for module in (config_fields, options):
        source = inspect.getsource(module)
        by_line = {t.start[0]: t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Assign) and node.end_lineno in by_line:
                for name in ast.unparse(node.targets[0]).strip("()").split(", "):
                    if name.startswith("c."):
                        result.setdefault(name.removeprefix("c."), by_line[node.end_lineno].lstrip("# "))
    result |= {f"dora.{name}": comment for name, comment in _in_group("lora", result).items()}
    for duration, comment in durations.DURATIONS.items():
        result |= {f"{duration}_{unit}": f"{comment} (only one of its units may be set)" for unit in durations.UNITS}
    return result


def _in_group(group: str, by_field: dict[str, str]) -> dict[str, str]:
    return {name.removeprefix(f"{group}."): comment for name, comment in by_field.items() if name.startswith(f"{group}.")}


def tasks() -> Iterable[Row]:
    """Yield the tasks: name, text columns, classes, and the metric that selects the checkpoint."""
    from research.tasks.catalog import TASKS

    for task in TASKS.values():
        yield task.name, " + ".join(task.texts), ", ".join(task.classes) or "classes of the training split", task.metric


def models() -> Iterable[Row]:
    """Yield the models that have a short name: name and source."""
    from research.weights import hub

    yield from ((name, named.hub_id) for name, named in hub.NAMED.items())
    yield "tiny", "a small BERT with random weights, for smoke runs"
    yield from ((name, "trained from scratch") for name in hub.BASELINES)
    yield "FOLDER or ORG/NAME", "given by --config.weights.source=; the README lists the model families"


def methods() -> Iterable[Row]:
    """Yield the methods: name and the first paragraph of the docstring."""
    from research.adapt.methods import METHODS

    yield from ((name, _summary(row.make.__doc__)) for name, row in METHODS.items())


def configs() -> Iterable[Row]:
    """Yield the config files: the path for --config and the first paragraph of the docstring."""
    root = files.folder()
    for path in sorted([*root.glob("*.py"), *root.glob("ablations/*.py"), *root.glob("papers/*.py")]):
        if path.stem != "__init__":
            yield str(path.relative_to(root.parent)), _summary(ast.get_docstring(ast.parse(path.read_text(encoding="utf8"))))


def _summary(doc: str | None) -> str:
    """Return the first paragraph of a docstring on one line."""
    return re.sub(r"\s+", " ", (doc or "").strip().split("\n\n")[0])


LISTS: dict[str, Callable[[], Iterable[Row]]] = {
    "tasks": tasks,
    "models": models,
    "methods": methods,
    "configs": configs,
    "fields": fields,
}
