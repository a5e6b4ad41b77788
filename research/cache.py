"""Where derived files are kept between runs: everything in it can be deleted and is made again."""

import os
from pathlib import Path


def folder(kind: str) -> Path:
    """The cache folder for one kind of file, made if need be: `$RESEARCH_CACHE/kind`, by default under `~/.cache/research`."""
    root = os.environ.get("RESEARCH_CACHE") or os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "research")
    path = Path(root) / kind
    path.mkdir(parents=True, exist_ok=True)
    return path
