"""Files on disk: atomic writes, JSON, and the cache of derived files."""

import contextlib
import functools
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from research.errors import InputError

SEAL_BYTES = hashlib.sha256().digest_size


def folder(kind: str) -> Path:
    """Return the cache folder for one kind of file, `$RESEARCH_CACHE/kind`; create it if it is missing.

    `RESEARCH_CACHE` defaults to `$XDG_CACHE_HOME/research`, and that to `~/.cache/research`.
    """
    root = os.environ.get("RESEARCH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "research")
    path = Path(root) / kind
    path.mkdir(parents=True, exist_ok=True)
    return path


def seal(path: Path) -> None:
    """Append the sha256 digest of a file's content to the file. `intact` checks it."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(digest)


def intact(path: Path, size: int | None = None) -> bool:
    """Return whether a sealed file exists and its content matches its digest and, if given, `size` in bytes.

    Print a message to stderr if the file is damaged. A process reads the file once and again only after the file changes.
    """
    if not path.exists():
        return False
    state = path.stat()
    return _intact(path, size, state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=1024)
def _intact(path: Path, size: int | None, file_size: int, *_: int) -> bool:
    content_size = file_size - SEAL_BYTES
    valid = content_size >= 0 and size in (None, content_size) and _is_sealed(path, content_size)
    if not valid:
        print(f"{path} is damaged; it is made again", file=sys.stderr)
    return valid


def _is_sealed(path: Path, size: int, chunk: int = 1 << 22) -> bool:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for begin in range(0, size, chunk):
            sha.update(file.read(min(chunk, size - begin)))
        return file.read() == sha.digest()


def sha256_of(paths: Iterable[Path]) -> str:
    """Return the sha256 (hex) of the contents of files, one after the other."""
    sha = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                sha.update(block)
    return sha.hexdigest()


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield the path of an empty temporary file in the folder of `path`.

    The file is renamed to `path` if the block succeeds and removed if it raises.
    """
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
    """Write UTF-8 text to a file atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, atomically."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True) + "\n")


def parse_json(text: str, place: str) -> Any:
    """Parse a JSON text. Raise InputError, naming `place`, if it is invalid, nested too deeply, or has an integer too long for Python."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        at = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise InputError(f"{place}: not JSON: {error.msg} at {at}") from None
    except RecursionError:
        raise InputError(f"{place}: JSON that is nested too deeply to read") from None
    except ValueError as error:  # an integer with thousands of digits
        raise InputError(f"{place}: JSON that cannot be read: {str(error).partition(';')[0]}") from None


def read_json(path: Path, *needed: str) -> dict[str, Any]:
    """Read a JSON object from a run's workdir. Raise InputError if the file is damaged or lacks one of the `needed` names."""
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise _damaged(path, (str(error).splitlines() or ["not JSON"])[0]) from None
    if not isinstance(value, dict):
        raise _damaged(path, f"expected a JSON object, got {type(value).__name__}")
    if missing := [name for name in needed if name not in value]:
        raise _damaged(path, f"{missing[0]!r} is missing")
    return value


def _damaged(path: Path, why: str) -> InputError:
    return InputError(f"{path} is damaged ({why}); remove {path.parent} and run again")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
