"""A run of a sweep, as the tables and pages see it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from research.ablation.sweep import Overrides


@dataclass(frozen=True)
class Run:
    """What a run sets, its whole config, its workdir, and what became of it: what is in `result.json`, or what went wrong."""

    id: str
    overrides: Overrides
    config: ConfigDict
    folder: Path
    result: dict[str, Any] | None = None
    error: str = ""

    @property
    def status(self) -> str:
        """`finished`, `failed`, `unfinished` (begun, or broken off without a word) or `not run`."""
        if self.result or self.error:
            return "finished" if self.result else "failed"
        return "unfinished" if (self.folder / "config.json").exists() else "not run"
