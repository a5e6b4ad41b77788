"""Location of the ready-made configs, wherever this package is installed. Imports no jax."""

import importlib.util
from pathlib import Path


def folder() -> Path:
    """Return the folder `configs`, whose files `--config=` accepts."""
    spec = importlib.util.find_spec("configs")
    return Path(next(iter(spec.submodule_search_locations)))
