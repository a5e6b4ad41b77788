"""The exception for bad user input, and hints for misspelt names."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """Unusable user input. The message is one line that names the thing, the place and the nearest right answer."""


def nearest(name: str, known: Iterable[str], rest: str = "") -> str:
    """Return the end of an error message about an unknown `name`.

    It suggests the closest of `known`. If none is close, it is `rest`, or a list of the known names (at most 40) where `rest` is empty.
    """
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    more = f", ... ({len(known)} in all)" if len(known) > 40 else ""
    return f"did you mean {close[0]!r}?" if close else rest or f"known: {', '.join(known[:40]) or 'none'}{more}"
