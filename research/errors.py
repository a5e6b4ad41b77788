"""Bad input, said in one line."""

import difflib
from collections.abc import Iterable


class InputError(Exception):
    """What the user gave cannot be used: the message is one line naming the thing, the place and the nearest right answer."""


def nearest(name: str, known: Iterable[str], rest: str = "") -> str:
    """Ends an error message about an unknown `name`: the closest of `known`, or, when nothing is close, `rest` or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else rest or f"known: {', '.join(known) or 'none'}"
