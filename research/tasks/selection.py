"""The entry `selection` of a `result.json`: which metric selected the checkpoint, and how it is shown. Imports no jax."""

from collections.abc import Mapping
from typing import Any


def title(selection: Mapping[str, Any]) -> str:
    """Return the title of the metric: `f1 of 'spam'`."""
    return selection.get("titles", {}).get(selection["metric"], selection["metric"])


def scale(selection: Mapping[str, Any]) -> int:
    """Return the factor by which tables multiply the metric: 100 for a metric that is shown in percent."""
    return 100 if selection.get("percent", True) else 1
