"""A run of a sweep, as the tables and pages see it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research.ablation.sweep import Overrides


@dataclass(frozen=True)
class Run:
    """What a run sets, its whole config, its workdir, and what became of it: what is in `result.json`, or what went wrong.

    `outdated`: it finished, but on other data than the runs beside it, so its result is left out and `error` says why."""

    id: str
    overrides: Overrides
    config: ConfigDict
    folder: Path
    result: dict[str, Any] | None = None
    error: str = ""
    outdated: bool = False

    @property
    def status(self) -> str:
        """`finished`, `failed`, `outdated`, `unfinished` (begun, or broken off without a word) or `not run`."""
        if self.outdated:
            return "outdated"
        if self.result or self.error:
            return "finished" if self.result else "failed"
        return "unfinished" if (self.folder / "config.json").exists() else "not run"

    @property
    def finished_at(self) -> float:
        """When its result was written, in seconds since 1970; 0 where it is not on disk."""
        path = self.folder / "result.json"
        return path.stat().st_mtime if path.exists() else 0.0
