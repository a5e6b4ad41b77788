"""Version of the running code."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def commit() -> str:
    """Return the commit of this checkout, with "-dirty" if tracked files differ from it. Return "" outside a checkout."""
    if not (ROOT / ".git").exists():  # git would otherwise report a repository of another project that contains an installed copy
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
