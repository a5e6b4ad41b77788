"""The training loop, over the updates of one run or of several runs in lockstep."""

import contextlib
from collections.abc import Callable, Sequence

import jax

from research.data.batches import Batches
from research.errors import InputError
from research.train.phases import Phase
from research.train.run import TrainingRun
from research.train.step import Batch
from research.train.trainers import Trainer

DUE = ("log", "eval", "checkpoint")  # what a step may be due for


def fit(runs: Sequence[TrainingRun | None], trainer: Trainer) -> None:
    """Train the runs to their end. None stands for a run that has ended already.

    All runs have the same phases and durations. The order in each step is fixed: batch, update, log, evaluate, save. So a checkpoint
    covers all earlier work, and a run that is killed and resumed gives the same result. If a run diverges, its `error` is set and the
    others go on; a trainer of one run raises the InputError instead.
    """
    experiment = next(run.experiment for run in runs if run)
    with contextlib.ExitStack() as stack:
        for run in filter(None, runs):
            stack.enter_context(run.telemetry)
        for number, phase in enumerate(experiment.phases, 1):
            _train(runs, trainer, phase, f"training, phase {number}" if len(experiment.phases) > 1 else "training")


def _train(runs: Sequence[TrainingRun | None], trainer: Trainer, phase: Phase, title: str) -> None:
    """Train the runs through one phase."""
    training = lambda run: run is not None and not run.ended and run.start < phase.stop  # noqa: E731
    if not any(map(training, runs)):
        return
    experiment = next(run.experiment for run in runs if training(run))
    due, begin = experiment.schedule_of(*DUE), max(phase.start, min(run.start for run in runs if training(run)))
    trainer.enter(phase, [None if run is None else run.state for run in runs])
    streams = [run.experiment.batches_of(phase, run.state.trainable).stream(begin) if training(run) else None for run in runs]
    batches: list[Batch | None] = [None] * len(runs)
    pending = None  # stats are fetched one step late, while the device computes the next step
    for step in range(begin + 1, phase.stop + 1):
        if not any(map(training, runs)):
            break
        batches = [next(stream) if training(run) else batch for run, stream, batch in zip(runs, streams, batches, strict=True)]
        active = {i: run for i, run in enumerate(runs) if training(run) and run.start < step}
        for i, run in active.items():
            run.meter.batch_ready(batches[i])
        stats = trainer.step(step, batches, [i in active for i in range(len(runs))])
        _add_stats(pending, trainer)
        pending = step, active, stats
        if step == begin + 1:
            jax.block_until_ready(stats)  # the first step's time includes the compilation
        due_now = {name for name in DUE if due(name, step)}
        if due_now:
            _add_stats(pending, trainer)  # waits for the step, so that training time excludes what follows
            pending = None
        for run in _healthy(active).values():
            _log(run, step, title, due_now, trainer.flops, compiled=step == begin + 1)
        if "eval" in due_now:
            _evaluate(step, _healthy(active), trainer, experiment.dev)
        for i, run in _healthy(active).items():
            if "checkpoint" in due_now or run.stopped:
                run.save(step, trainer.full_state(i))
            run.meter.exclude()
    for i, run in enumerate(runs):
        if training(run):
            run.state = trainer.full_state(i)


def _healthy(runs: dict[int, TrainingRun]) -> dict[int, TrainingRun]:
    """Return the runs that have not failed."""
    return {i: run for i, run in runs.items() if run.error is None}


def _add_stats(pending: tuple | None, trainer: Trainer) -> None:
    """Wait for the stats of a step, given with its number and its runs, and add them to the metrics of the runs."""
    if pending is None:
        return
    step, active, stats = pending
    each = trainer.stats(stats)
    for i, run in _healthy(active).items():
        _attempt(run, lambda i=i, run=run: run.metrics.add(step, each[i]), alone=len(each) == 1)


def _log(run: TrainingRun, step: int, title: str, due: set[str], flops: float, compiled: bool) -> None:
    """Count a step that is done. If anything is due, write the training metrics; if a log line is due, print it."""
    scores = run.metrics.scores() if due else {}
    if due:
        run.telemetry.write(step, scores)
    run.meter.step_done(flops, compiled)
    run.telemetry.show(title, step, run.metrics.note)
    if "log" in due:
        run.telemetry.log(title, step, scores, run.meter.counts())


def _evaluate(step: int, runs: dict[int, TrainingRun], trainer: Trainer, dev: Batches) -> None:
    """Evaluate the runs, by their indices in the trainer's lists, on dev after update `step`."""
    for run in runs.values():
        run.telemetry.show("evaluating")
    params = trainer.eval_params()
    evaluations = trainer.evaluate(params, dev)
    for i, run in runs.items():

        def judge(i: int = i, run: TrainingRun = run) -> None:
            stats, outputs = evaluations[i].checked()
            scores = run.experiment.model.task.metrics(stats, outputs, run.experiment.data.splits["dev"].labels)
            run.judge(step, scores, lambda: trainer.full_state(i, params))

        _attempt(run, judge, alone=len(evaluations) == 1)


def _attempt(run: TrainingRun, action: Callable[[], None], alone: bool) -> None:
    """Call `action` for a run. An InputError is stored as `run.error`, or raised if there is no other run."""
    try:
        action()
    except InputError as error:
        if alone:
            raise
        run.error = error
