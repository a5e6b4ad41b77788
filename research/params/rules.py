"""The one grammar for "which parameters": ordered, named patterns over slash paths.

A pattern of plain words (`bias`, `attention/query`, `layer_1`) matches where its words stand as whole, consecutive
components of a name: `layer_1` is not in `encoder/layer_11/...`. Anything else is a regular expression over the full name.
The first rule that matches decides; every name must be covered and every rule must decide somewhere or, where it is hidden
by an earlier one, at least match.
"""

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from research.errors import InputError, nearest

Value = TypeVar("Value")
_PLAIN = re.compile(r"[\w-]+(/[\w-]+)*")


def matches(pattern: str, name: str) -> bool:
    """Whether `pattern` covers the parameter called `name`. Raises InputError on an invalid regular expression."""
    if _PLAIN.fullmatch(pattern):
        return f"/{pattern}/" in f"/{name}/"
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error as error:
        raise InputError(f"pattern {pattern!r} is not a regular expression: {error}") from None


def resolve(rules: Mapping[str, tuple[str, Value]], names: Iterable[str]) -> dict[str, tuple[str, Value]]:
    """name -> (rule, value) by the first rule whose pattern matches.

    `rules` maps the rule's own name to (pattern, value), in order. Raises InputError for a rule that matches no name and
    for a name that no rule covers.
    """
    names = list(names)
    for rule, (pattern, _) in rules.items():
        check_matches(rule, pattern, names)
    found = {}
    for name in names:
        decided = next(((rule, value) for rule, (pattern, value) in rules.items() if matches(pattern, name)), None)
        if decided is None:
            raise InputError(f"no rule covers parameter {name!r}; rules: {', '.join(rules)}")
        found[name] = decided
    return found


def check_matches(rule: str, pattern: str, names: Iterable[str]) -> None:
    """Raises InputError, naming the nearest component, unless `pattern` matches one of `names`."""
    names = list(names)
    if not any(matches(pattern, name) for name in names):
        words = {"/".join(parts[i:j]) for parts in (n.split("/") for n in names) for j in range(len(parts) + 1) for i in range(j)}
        raise InputError(f"rule {rule!r}: pattern {pattern!r} matches no parameter; {nearest(pattern, words)}")
