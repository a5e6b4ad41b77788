"""A run of a sweep, as tables and pages see it. Imports no jax."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research.ablation.sweep import Overrides


@dataclass(frozen=True)
class Run:
    """A run with its overrides, full config, workdir `folder` and outcome: the content of `result.json`, or an error message.

    `outdated`: the run finished, but on other data than the newest run; `result` is then None and `error` gives the reason."""

    id: str
    overrides: Overrides
    config: ConfigDict
    folder: Path
    result: dict[str, Any] | None = None
    error: str = ""
    outdated: bool = False

    @property
    def status(self) -> str:
        """Return `finished`, `failed`, `outdated`, `unfinished` (started, without a result or an error) or `not run`."""
        if self.outdated:
            return "outdated"
        if self.result or self.error:
            return "finished" if self.result else "failed"
        return "unfinished" if (self.folder / "config.json").exists() else "not run"

    @property
    def finished_at(self) -> float:
        """Return when the result was written, in seconds since 1970; 0 without a result on disk."""
        path = self.folder / "result.json"
        return path.stat().st_mtime if path.exists() else 0.0
