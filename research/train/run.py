"""The record of one training run: checkpoints, metrics and early stopping."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from research.errors import InputError
from research.params.tree import split
from research.tracking.throughput import Meter
from research.tracking.writer import Telemetry
from research.train.checkpoint import Checkpoints
from research.train.step import State


class TrainingRun:
    """A run in training. Writes metrics, dev scores, and the checkpoints `best` (best parameters) and `latest` (full state).

    `state` is the full state to train from, on the host or the device, and `start` is its number of updates. `error` is set if the run
    failed. Raises InputError if the checkpoints in `workdir` belong to another run or one of them is missing.
    """

    def __init__(self, experiment: Any, workdir: Path, console: Console | None = None):
        self.experiment, self.workdir, self.error = experiment, workdir, None
        self.latest, self.best = Checkpoints(workdir / "checkpoints", "latest"), Checkpoints(workdir / "checkpoints", "best")
        self.identity = {"weights": experiment.model.weights_sha256, "data": experiment.data.fingerprint}
        self.state, meta = self._resumed()
        self.start, self.stopped = int(self.state.step), bool(meta.get("stopped"))
        self.meter, self.metrics = Meter(meta.get("speed")), MetricAccumulator(experiment)
        self.telemetry = Telemetry(workdir, experiment.total_steps, resume=self.start, console=console)
        self._patience = experiment.steps_of("patience")

    @property
    def ended(self) -> bool:
        """Return True if the run has stopped early or failed."""
        return self.stopped or self.error is not None

    def judge(self, step: int, scores: dict[str, float], full_state: Callable[[], State]) -> None:
        """Record the dev scores after update `step`, save the parameters if they are the best so far, and stop if patience has run out."""
        self.telemetry.write(step, {f"dev/{name}": value for name, value in scores.items()})
        model, best = self.experiment.model, self.best
        task, score, before = model.task, scores[model.task.metric], None if best.step is None else best.meta()["score"]
        is_best = before is None or (score > before if task.higher_is_better else score < before)
        self.telemetry.judge(step, scores, task, is_best, before, best.step)
        if is_best:
            best.save(full_state(), self.experiment.position(step), {**self.identity, "score": score, **model.learnt})
        self.stopped = bool(self._patience) and step - best.step >= self._patience
        if self.stopped:
            self.telemetry.say(
                f"step {step}: stopped, as dev {model.task.titles[model.task.metric]} has not been better since step {best.step}"
            )

    def save(self, step: int, state: State) -> None:
        """Save the full state after update `step`, and whether the run has stopped."""
        meta = {"speed": self.meter.counts(), "stopped": self.stopped, "best": self.best.step}
        self.latest.save(state, self.experiment.position(step), self.identity | meta)

    def _resumed(self) -> tuple[State, dict[str, Any]]:
        """Return the initial or restored state of all parameters that train in any phase, and the metadata of its checkpoint (or {})."""
        experiment = self.experiment
        state = State(np.zeros((), np.int32), experiment.model.trainable, ())
        if self.latest.step is None:
            return state, {}
        meta, position = self.latest.meta(), experiment.position(self.latest.step)
        check_identity(self.workdir, meta | {"position": self.latest.data()}, self.identity | {"position": position})
        if meta.get("best") is not None and self.best.step is None:
            missing = f"{self.best.folder}: the checkpoint of step {meta['best']} is missing"
            raise InputError(f"{missing}; remove {self.workdir} and train again")
        phase = experiment.phase_of(self.latest.step)
        fresh = phase.optimizer(experiment.scalars(phase.start)).init(split(state.trainable, phase.plan.trained)[0])
        return self.latest.restore(state.replace(opt_state=fresh)), meta


def check_identity(workdir: Path, meta: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise InputError if the weights, data or data position in the checkpoint metadata `meta` differ from `now`."""
    for name, value in now.items():
        if meta.get(name) != value:
            raise InputError(f"{workdir}: trained on other {name} ({meta.get(name)} there, {value} now); give another --workdir")


class MetricAccumulator:
    """Sums that the training metrics are computed from, since the metrics were last returned."""

    def __init__(self, experiment: Any):
        self._experiment, self._sum, self._norms, self.note = experiment, None, [], ""

    def add(self, step: int, stats: dict[str, np.ndarray]) -> None:
        """Add the stats of update `step`, float64 on the host. Raises InputError if the loss is not finite."""
        loss = stats["loss"] / stats["weight"]
        if not np.isfinite(loss):
            rate = f"--config.learning_rate={self._experiment.config.learning_rate:g}"
            raise InputError(f"step {step}: the loss is {loss}; training diverged: lower {rate}")
        self._norms.append(float(stats["grad_norm"]))
        sums = {name: x for name, x in stats.items() if name != "grad_norm"}
        self._sum = sums if self._sum is None else {name: self._sum[name] + x for name, x in sums.items()}
        self._step, self.note = step, f"loss {loss:.3f}"

    def scores(self) -> dict[str, float]:
        """Return the training metrics of all updates since the last call, and reset the sums."""
        scores = self._experiment.model.task.metrics(self._sum)
        optimizer = {"learning_rate": float(self._experiment.rates[self._step - 1]), "grad_norm": float(np.mean(self._norms))}
        self._sum, self._norms = None, []
        return {f"train/{name}": value for name, value in scores.items()} | optimizer
