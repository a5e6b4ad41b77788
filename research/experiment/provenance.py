"""Which version of this code is running."""

import functools
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]


@functools.cache
def commit() -> str:
    """Return the commit of the checkout that this code runs from, with "-dirty" where tracked files differ; "" where there is none."""
    if not (ROOT / ".git").exists():  # installed elsewhere; a repository around that place would be another project's
        return ""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
