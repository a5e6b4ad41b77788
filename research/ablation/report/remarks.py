"""Remarks under a table: failed runs, runs on outdated data, and differences beside the settings. Imports no jax."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from research.ablation.run import Run

RERUN = "--rerun_outdated trains them again"


def data_of(run: Run) -> tuple[str, str, str]:
    """Return the task, data source and data path of a run, which identify its data."""
    return run.config.task, run.config.data.source, run.config.data.path


def fingerprint(run: Run) -> str:
    """Return the digest of the data that a finished run read; "" if an older version did not record it."""
    return run.result.get("data", {}).get("raw_fingerprint", "")


def newest(runs: Sequence[Run]) -> dict[Hashable, str]:
    """Return a dict from `data_of` to the data fingerprint of the run that finished last."""
    finished = sorted((run for run in runs if run.result), key=lambda run: run.finished_at)
    return {data_of(run): fingerprint(run) for run in finished}


def without_outdated(runs: Sequence[Run], current: Mapping[Hashable, str]) -> list[Run]:
    """Return the runs; runs whose data fingerprint is not the `current` one are marked as outdated and lose their result."""
    marked = []
    for run in runs:
        if run.result and (before := fingerprint(run)) != (now := current.get(data_of(run), fingerprint(run))):
            reason = f"it read other data ({before[:12] or 'not recorded'}) than the newest run ({now[:12] or 'not recorded'})"
            run = dataclasses.replace(run, result=None, error=reason, outdated=True)
        marked.append(run)
    return marked


def remarks(runs: Sequence[Run]) -> str:
    """Return a line for each error with the runs that had it, a line for outdated runs, and a line for other differences of the runs."""
    lines = [*_failures(runs), *_outdated(runs), *_differences([run for run in runs if run.result])]
    return "".join(f"\n{line}\n" for line in lines)


def _failures(runs: Sequence[Run]) -> list[str]:
    by_error = defaultdict(list)
    for run in runs:
        if run.status == "failed":
            by_error[run.error.splitlines()[0]].append(run)
    return [f"{_count(failed)} failed: {error} ({_names(failed)})" for error, failed in by_error.items()]


def _outdated(runs: Sequence[Run]) -> list[str]:
    outdated = [run for run in runs if run.outdated]
    if not outdated:
        return []
    names = _names(outdated)
    return [f"Left out: {_count(outdated)} on other data than the newest run of the same task, source and path ({names}); {RERUN}."]


def _differences(runs: Sequence[Run]) -> list[str]:
    """Return a line if finished runs differ in commit, jax version, precision or kind of device."""
    facts: dict[str, list[str]] = {name: [] for name in ("commit", "jax", "precision", "device")}
    for run in runs:
        environment: dict[str, Any] = run.result.get("environment", {})
        facts["commit"].append(environment.get("commit") or "not recorded")
        facts["jax"].append(environment.get("jax") or "not recorded")
        facts["device"].append(", ".join(sorted(set(environment.get("devices", ())))) or "not recorded")
        if "precision" not in run.overrides:
            facts["precision"].append(run.result.get("config", run.config).get("precision", ""))
    differing = {name: Counter(values) for name, values in facts.items() if len(set(values)) > 1}
    parts = (f"{name} {', '.join(f'{value[:18]} ({_plural(n)})' for value, n in counts.items())}" for name, counts in differing.items())
    return [f"Apart from their settings, the runs differ in: {'; '.join(parts)}."] if differing else []


def _count(runs: Sequence[Run]) -> str:
    return _plural(len(runs))


def _plural(count: int) -> str:
    return f"{count} run{'s' if count > 1 else ''}"


def _names(runs: Sequence[Run], most: int = 10) -> str:
    """Return the ids of the runs, at most `most` of them."""
    return ", ".join(run.id for run in runs[:most]) + (f" and {len(runs) - most} more" if len(runs) > most else "")
