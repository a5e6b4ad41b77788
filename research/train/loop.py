"""The training loop."""

import functools
from pathlib import Path
from typing import Any

import jax
import numpy as np

from research.errors import InputError
from research.parallel import layouts, program
from research.params.tree import Tree, merge, split
from research.tracking.throughput import Meter
from research.tracking.writer import Telemetry
from research.train.checkpoint import Checkpoints
from research.train.evaluate import evaluate
from research.train.optimizer import carried
from research.train.step import Batch, State, eval_step, split_microbatches, train_step


def eval_program(model, layout: layouts.Layout) -> program.Program:
    """The compiled evaluation of `model`."""
    return layout.compile(functools.partial(eval_step, logits_fn=model.logits, totals_fn=model.kind.totals))


def train_program(experiment, phase=None, model=None) -> program.Program:
    """The compiled training step of a phase (the first), for `model` in it; it reuses the buffers of the state it is given."""
    phase, model = phase or experiment.phases[0], model or experiment.model.at(experiment.phases[0].plan, experiment.model.trainable)
    grad_transform = lambda gradient: functools.reduce(lambda g, r: r.wrap_grad(g), model.recipe.hooks, gradient)  # noqa: E731
    step = functools.partial(train_step, gradient=model.gradient, grad_transform=grad_transform, tx=phase.tx)
    return experiment.layout.compile(step, donate=(0,))


class PhaseRunner:
    """A phase under way: what trains in it on the devices, and all else that its step needs.

    What stays open from the phase before keeps its moments; what opens starts afresh; what closes is frozen as it is.
    """

    def __init__(self, experiment, phase, whole: State, device_constants: Tree):
        model, layout = experiment.enter(phase, whole.trainable), experiment.layout
        state = State(whole.step, model.trainable, carried(phase.tx.init(model.trainable), whole.opt_state))
        closed = split(whole.trainable, phase.plan.trained)[1]
        self.state, self._closed, self._key = (layout.place(tree) for tree in (state, closed, experiment.dropout_key))
        self._frozen, self._layout, self._kept = merge(device_constants, self._closed), layout, model.eval_params
        self.program = train_program(experiment, phase, model)

    def step(self, batch: Batch) -> dict[str, jax.Array]:
        """One update; gives its totals."""
        self.state, totals = self.program(self.state, self._frozen, batch, self._key)
        return totals

    def eval_params(self) -> Tree:
        """What to evaluate and to keep of all that trains at some time, on the devices."""
        return merge(self._kept(self.state.trainable, self.state.opt_state), self._closed)

    def full_state(self, trainable: Tree | None = None) -> State:
        """One device's copy of the state, with all that trains at some time (or the given tree for it)."""
        trainable = merge(self.state.trainable, self._closed) if trainable is None else trainable
        return self._layout.first(self.state.replace(trainable=trainable))


def fit(experiment, workdir: Path, evaluated: program.Program, latest: Checkpoints, best: Checkpoints, console=None):
    """Trains to the end, or until dev has not been better for the config's patience, from `latest` where it holds a checkpoint; `best`
    keeps what was best on dev. Progress goes to the rich `console`, by default standard error.

    The order inside the loop is fixed (batch, step, log, evaluate, save): a checkpoint then holds all that came before it, also that
    training has stopped, and a run that is killed and started again does what it would have done. Gives the `Meter`, and how often a
    step was compiled. The parameters that the model began with are used up, unless a regulariser keeps them.
    """
    e, model, layout, stopped = experiment, experiment.model, experiment.layout, False
    identity = {"weights": model.weights_sha256, "data": e.data.fingerprint}
    whole, before = resumed(e, workdir, latest, best, identity)
    start, meter, window, compilations = int(whole.step), Meter(before.get("speed")), MetricAccumulator(e), 0
    device_constants, due, patience = (
        layout.place(model.device_constants),
        e.schedule_of("log", "eval", "checkpoint"),
        e.steps_of("patience"),
    )
    frozen = {part: device_constants[part] for part in model.frozen}  # what evaluation takes: nothing that only training asks for
    with Telemetry(workdir, e.total_steps, resume=start, console=console) as telemetry:
        for number, phase in enumerate(e.phases, 1):
            if phase.stop <= start or stopped or before.get("stopped"):
                continue
            running, first = PhaseRunner(e, phase, whole, device_constants), max(start, phase.start)
            stream, what, whole = e.train.stream(first), f"training, phase {number}" if len(e.phases) > 1 else "training", None
            for step in range(first + 1, phase.stop + 1):
                batch = next(stream)
                meter.batch_ready(batch)
                totals = running.step(split_microbatches(batch, e.config.accumulate, layout))
                window.add(step, totals)
                if step == first + 1:
                    jax.block_until_ready(totals)  # what it took to compile is the first step's own time
                if due("log", step) or due("eval", step) or due("checkpoint", step):
                    telemetry.write(step, scores := window.scores())  # waits for the step, so that what follows is not timed as training
                meter.step_done(running.program.flops, compiled=step == first + 1)
                telemetry.show(what, step, window.note)
                if due("log", step):
                    telemetry.log(what, step, scores, meter.counts())
                if due("eval", step):
                    telemetry.show("evaluating")
                    kept = running.eval_params()
                    scores = model.scores(evaluate(evaluated, kept, frozen, e.dev, layout)[0])
                    telemetry.write(step, {f"dev/{name}": value for name, value in scores.items()})
                    score, highest = scores[model.task.metric], None if best.step is None else best.meta()["score"]
                    telemetry.judge(step, scores, model.task.metric, highest, best.step, model.positive)
                    if highest is None or score > highest:
                        best.save(running.full_state(kept), e.position(step), {**identity, "score": score, **model.learnt})
                    stopped = bool(patience) and step - best.step >= patience
                if due("checkpoint", step) or stopped:
                    then = {"speed": meter.counts(), "stopped": stopped, "best": best.step}
                    latest.save(running.full_state(), e.position(step), identity | then)
                meter.exclude()
                if stopped:
                    telemetry.say(f"step {step}: stopped, as dev {model.metric_title} has not been better since step {best.step}")
                    break
            whole, compilations = running.full_state(), compilations + running.program.compilations
    return meter, compilations


def resumed(experiment, workdir: Path, latest: Checkpoints, best: Checkpoints, identity: dict[str, Any]) -> tuple[State, dict[str, Any]]:
    """The state to begin with, of all that trains at some time, and the metadata it was saved with.

    Raises InputError where the checkpoint is of another run, or where `best` has lost what it held at that time."""
    e, state = experiment, State(np.zeros((), np.int32), experiment.model.trainable, ())
    if latest.step is None:
        return state, {}
    meta = latest.meta()
    check_identity(workdir, meta | {"position": latest.data()}, identity | {"position": e.position(latest.step)})
    if meta.get("best") is not None and best.step is None:
        raise InputError(f"{best.folder}: the checkpoint of step {meta['best']} is missing; remove {workdir} and train again")
    phase = e.phase_of(latest.step)
    return latest.restore(state.replace(opt_state=phase.tx.init(split(state.trainable, phase.plan.trained)[0]))), meta


def check_identity(workdir: Path, meta: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises InputError where the checkpoint's weights, data or place in the data are not those of `now`."""
    for name, value in now.items():
        if meta.get(name) != value:
            raise InputError(f"{workdir}: trained on other {name} ({meta.get(name)} there, {value} now); give another --workdir")


class MetricAccumulator:
    """Totals of the steps since the last log line, fetched one step late so that the device never waits for the host."""

    def __init__(self, experiment):
        self._e, self._late, self._sum, self._norms, self.note = experiment, None, None, [], ""

    def add(self, step: int, totals: Any) -> None:
        """Takes the totals of `step`, on the device, and brings home those of the step before."""
        self._fetch()
        self._late = step, totals

    def _fetch(self) -> None:
        if self._late is None:
            return
        step, totals = self._late
        totals = jax.tree.map(lambda x: np.asarray(x, np.float64), self._e.layout.first(totals))
        self._late = None
        loss = totals["loss"] / totals["count"]
        if not np.isfinite(loss):
            rate = f"--config.learning_rate={self._e.config.learning_rate:g}"
            raise InputError(f"step {step}: the loss is {loss}; training diverged: lower {rate}")
        self._norms.append(float(totals.pop("grad_norm")))
        self._sum = totals if self._sum is None else jax.tree.map(np.add, self._sum, totals)
        self._step, self.note = step, f"loss {loss:.3f}"

    def scores(self) -> dict[str, float]:
        """Training metrics over all steps since the last call."""
        self._fetch()
        scores = self._e.model.scores(self._sum)
        optimizer = {"learning_rate": float(self._e.rates[self._step - 1]), "grad_norm": float(np.mean(self._norms))}
        self._sum, self._norms = None, []
        return {f"train/{name}": value for name, value in scores.items()} | optimizer
