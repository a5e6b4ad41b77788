"""Files that are whole or not there: written beside their place and renamed. And JSON that a user may have touched."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from research.errors import InputError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Gives the path of an empty file beside `path`; when the block ends well it becomes `path`, else it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    os.chmod(name, 0o666 & ~_umask())
    try:
        yield Path(name)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text."""
    with writing(path) as part:
        part.write_text(text, encoding="utf8")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON for people: indented, keys sorted."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def parse_json(text: str, place: str) -> Any:
    """Return the value of a JSON text. Raise InputError, naming `place`, where there is none that Python can hold."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{place}: not JSON: {error.msg} at {at}") from None
    except RecursionError:
        raise InputError(f"{place}: JSON that is nested too deeply to read") from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{place}: JSON that cannot be read: {str(error).partition(';')[0]}") from None


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON object of a run's workdir. Raises InputError where the file is damaged, or has none of a `needed` name."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, (str(error).splitlines() or ["not JSON"])[0]) from None
    if not isinstance(value, dict):
        raise _damaged(path, f"a JSON object is needed, not {type(value).__name__}")
    if missing := [name for name in needed if name not in value]:
        raise _damaged(path, f"{missing[0]!r} is missing")
    return value


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged ({why}); remove {path.parent} and run again")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
