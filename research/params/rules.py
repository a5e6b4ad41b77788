"""The grammar for selecting parameters: ordered, named patterns over slash paths.

A pattern of plain words (`bias`, `attention/query`, `layer_1`) matches names that contain its words as consecutive components:
`layer_1` does not match `encoder/layer_11/...`. Any other pattern is a regular expression for the full name.
The first matching rule decides. A rule must cover every name, and every rule must match a name, even if an earlier rule decides it.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from research.errors import InputError, nearest

Value = TypeVar("Value")
_PLAIN = re.compile(r"[\w-]+(/[\w-]+)*")


def matches(pattern: str, name: str) -> bool:
    """Return whether `pattern` covers the parameter `name`. Raise InputError for an invalid regular expression."""
    if _PLAIN.fullmatch(pattern):
        return f"/{pattern}/" in f"/{name}/"
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise InputError(f"pattern {pattern!r} is not a regular expression: {error}") from None


def resolve(rules: Mapping[str, tuple[str, Value]], names: Iterable[str]) -> dict[str, tuple[str, Value]]:
    """Return a mapping from each name to the (rule, value) of the first rule whose pattern matches it.

    `rules` maps rule names to (pattern, value), in order. Raise InputError for a rule that matches no name and for a name that
    no rule covers.
    """
    names = list(names)
    for rule, (pattern, _) in rules.items():
        check_matches(rule, pattern, names)
    resolved = {}
    for name in names:
        decision = next(((rule, value) for rule, (pattern, value) in rules.items() if matches(pattern, name)), None)
        if decision is None:
            raise InputError(f"no rule covers parameter {name!r}; rules: {', '.join(rules)}")
        resolved[name] = decision
    return resolved


def check_matches(rule: str, pattern: str, names: Iterable[str]) -> None:
    """Raise InputError if `pattern` matches none of `names`. The message suggests the nearest component."""
    names = list(names)
    if not any(matches(pattern, name) for name in names):
        words = {"/".join(parts[i:j]) for parts in (n.split("/") for n in names) for j in range(len(parts) + 1) for i in range(j)}
        raise InputError(f"rule {rule!r}: pattern {pattern!r} matches no parameter; {nearest(pattern, words)}")
