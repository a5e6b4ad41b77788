"""Where derived files are kept between runs: everything in it can be deleted and is made again."""

import functools
import hashlib
import os
import sys
from pathlib import Path

SEAL_BYTES = hashlib.sha256().digest_size


def folder(kind: str) -> Path:
    """The cache folder for one kind of file, made if need be: `$RESEARCH_CACHE/kind`, by default under `~/.cache/research`."""
    root = os.environ.get("RESEARCH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "research")
    path = Path(root) / kind
    path.mkdir(parents=True, exist_ok=True)
    return path


def seal(path: Path) -> None:
    """Append the sha256 of a file's content to the file, for `intact` to check."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
        file.seek(0, os.SEEK_END)
        file.write(digest)


def intact(path: Path, size: int | None = None) -> bool:
    """Return whether a sealed file is there with the content that was sealed, of `size` bytes; say so where it is damaged.

    A file is read for this once in the life of a process, unless it changes.
    """
    if not path.exists():
        return False
    state = path.stat()
    return _intact(path, size, state.st_size, state.st_mtime_ns, state.st_ino)


@functools.lru_cache(maxsize=1024)
def _intact(path: Path, size: int | None, there: int, *_: int) -> bool:
    content = there - SEAL_BYTES
    right = content >= 0 and size in (None, content) and _is_sealed(path, content)
    if not right:
        print(f"{path} is damaged; it is made again", file=sys.stderr)
    return right


def _is_sealed(path: Path, size: int, chunk: int = 1 << 22) -> bool:
    sha = hashlib.sha256()
    with path.open("rb") as file:
        for begin in range(0, size, chunk):
            sha.update(file.read(min(chunk, size - begin)))
        return file.read() == sha.digest()
