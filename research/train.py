"""The step and the loop. They know no method: what trains, the loss and the optimizer are given as trees and functions."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research import optim, parallel
from research.adapt.method import Gradient
from research.checkpoint import Checkpoints
from research.errors import InputError
from research.evaluate import evaluate
from research.params.tree import Tree, merge, split
from research.speed import Meter
from research.telemetry import Telemetry

Batch = dict[str, jax.Array]


class State(flax.struct.PyTreeNode):
    """What changes from step to step, and all that is checkpointed: frozen parameters are not in it.

    `step` int32 scalar, the number of updates made; `trainable` the trainable half of the parameters.
    """

    step: jax.Array
    trainable: Tree
    opt_state: optax.OptState


def init_state(trainable: Tree, tx: optax.GradientTransformation) -> State:
    """The state before the first step."""
    return State(jnp.zeros((), jnp.int32), trainable, tx.init(trainable))


def train_step(
    state: State,
    frozen: Tree,
    batch: Batch,
    key: jax.Array,
    *,
    gradient: Gradient,
    tx: optax.GradientTransformation,
    around: Callable[[Gradient], Gradient] = lambda gradient: gradient,
    axis: str | None = None,
) -> tuple[State, dict[str, jax.Array]]:
    """One update from a batch whose leaves are [A, B, ...]: A parts, run one after the other.

    `gradient(trainable, frozen, part, key)` is that of the *sum* of the losses of the part's examples, with a dict of totals;
    `around` may change what is done with the mean gradient's function. Returns the new state and the summed totals, with
    `count` and `grad_norm` (of the mean gradient of what trains, before clipping). The dropout key is a function of the step
    and `key` (uint32 key data).
    """
    key = jax.random.fold_in(jax.random.wrap_key_data(key), state.step)
    grads, totals = around(functools.partial(mean_gradient, gradient, axis))(state.trainable, frozen, batch, key)
    updates, opt_state = tx.update(grads, state.opt_state, state.trainable)
    new = State(state.step + 1, optax.apply_updates(state.trainable, updates), opt_state)
    return new, {**totals, "grad_norm": optax.tree.norm(grads)}


def mean_gradient(gradient: Gradient, axis: str | None, trainable: Tree, frozen: Tree, batch: Batch, key: jax.Array):
    """The gradient of the mean loss over a batch in parts, as in `train_step`, and the totals with `count`.

    Gradients and sums are added over parts and devices and divided once by the number of examples, so that neither the number
    of parts nor that of devices changes the result.
    """

    def of_part(part: Batch):
        grads, totals = gradient(trainable, frozen, part, key)
        return grads, {**totals, "count": part["weights"].sum()}

    parts = batch["weights"].shape[0]
    if parts == 1:
        grads, totals = of_part(jax.tree.map(lambda x: x[0], batch))
    else:
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(of_part, jax.tree.map(lambda x: x[0], batch)))
        add = lambda total, part: (jax.tree.map(jnp.add, total, of_part(part)), None)  # noqa: E731
        (grads, totals), _ = jax.lax.scan(add, zeros, batch)
    grads, totals = parallel.add_up((grads, totals), axis)
    part = 1.0 / totals["count"]  # a product may be done again by each of its readers, a division would be done once and kept
    return jax.tree.map(lambda g: g * part, grads), totals


def eval_step(trainable: Tree, frozen: Tree, batch: Batch, *, logits_fn: Callable, totals_fn: Callable, axis: str | None = None) -> Any:
    """Logits of one batch [B, ...] and its totals, added over devices. Deterministic."""
    logits = logits_fn(trainable, frozen, batch)
    return logits, parallel.add_up(totals_fn(logits, batch), axis)


def eval_program(model, layout: parallel.Layout) -> parallel.Program:
    """The compiled evaluation of `model`."""
    return layout.compile(functools.partial(eval_step, logits_fn=model.logits, totals_fn=model.kind.totals))


def train_program(experiment, phase=None, model=None) -> parallel.Program:
    """The compiled training step of a phase (the first), for `model` in it; it reuses the buffers of the state it is given."""
    phase, model = phase or experiment.phases[0], model or experiment.model.at(experiment.phases[0].plan, experiment.model.trainable)
    around = lambda gradient: functools.reduce(lambda g, r: r.of_batch(g), model.recipe.regularisers, gradient)  # noqa: E731
    step = functools.partial(train_step, gradient=model.gradient, around=around, tx=phase.tx)
    return experiment.layout.compile(step, donate=(0,))


class Running:
    """A phase under way: what trains in it on the devices, and all else that its step needs.

    What stays open from the phase before keeps its moments; what opens starts afresh; what closes is frozen as it is.
    """

    def __init__(self, experiment, phase, whole: State, resident: Tree):
        model, layout = experiment.enter(phase, whole.trainable), experiment.layout
        state = State(whole.step, model.trainable, optim.carried(phase.tx.init(model.trainable), whole.opt_state))
        closed = split(whole.trainable, phase.plan.trained)[1]
        self.state, self._closed, self._key = (layout.place(tree) for tree in (state, closed, experiment.dropout_key))
        self._frozen, self._layout, self._kept = merge(resident, self._closed), layout, model.kept
        self.program = train_program(experiment, phase, model)

    def step(self, batch: Batch) -> dict[str, jax.Array]:
        """One update; gives its totals."""
        self.state, totals = self.program(self.state, self._frozen, batch, self._key)
        return totals

    def kept(self) -> Tree:
        """What to evaluate and to keep of all that trains at some time, on the devices."""
        return merge(self._kept(self.state.trainable, self.state.opt_state), self._closed)

    def whole(self, trainable: Tree | None = None) -> State:
        """One device's copy of the state, with all that trains at some time (or the given tree for it)."""
        trainable = merge(self.state.trainable, self._closed) if trainable is None else trainable
        return self._layout.first(self.state.replace(trainable=trainable))


def fit(experiment, workdir: Path, evaluated: parallel.Program, latest: Checkpoints, best: Checkpoints, console=None):
    """Trains to the end, or until dev has not been better for the config's patience, from `latest` where it holds a checkpoint; `best`
    keeps what was best on dev. Progress goes to the rich `console`, by default standard error.

    The order inside the loop is fixed (batch, step, log, evaluate, save): a checkpoint then holds all that came before it, also that
    training has stopped, and a run that is killed and started again does what it would have done. Gives the `Meter`, and how often a
    step was compiled. The parameters that the model began with are used up, unless a regulariser keeps them.
    """
    e, model, layout, stopped = experiment, experiment.model, experiment.layout, False
    identity = {"weights": model.weights_sha256, "data": e.data.fingerprint}
    whole, before = resumed(e, workdir, latest, best, identity)
    start, meter, window, compilations = int(whole.step), Meter(before.get("speed")), Window(e), 0
    resident, due, patience = layout.place(model.resident), e.schedule_of("log", "eval", "checkpoint"), e.steps_of("patience")
    frozen = {part: resident[part] for part in model.frozen}  # what evaluation takes: nothing that only training asks for
    with Telemetry(workdir, e.total_steps, resume=start, console=console) as telemetry:
        for number, phase in enumerate(e.phases, 1):
            if phase.stop <= start or stopped or before.get("stopped"):
                continue
            running, first = Running(e, phase, whole, resident), max(start, phase.start)
            stream, what, whole = e.train.stream(first), f"training, phase {number}" if len(e.phases) > 1 else "training", None
            for step in range(first + 1, phase.stop + 1):
                batch = next(stream)
                meter.got(batch)
                totals = running.step(in_parts(batch, e.config.accumulate, layout))
                window.add(step, totals)
                if step == first + 1:
                    jax.block_until_ready(totals)  # what it took to compile is the first step's own time
                if due("log", step) or due("eval", step) or due("checkpoint", step):
                    telemetry.write(step, scores := window.scores())  # waits for the step, so that what follows is not timed as training
                meter.stepped(running.program.flops, compiled=step == first + 1)
                telemetry.show(what, step, window.note)
                if due("log", step):
                    telemetry.log(what, step, scores, meter.counts())
                if due("eval", step):
                    telemetry.show("evaluating")
                    kept = running.kept()
                    scores = model.scores(evaluate(evaluated, kept, frozen, e.dev, layout)[0])
                    telemetry.write(step, {f"dev/{name}": value for name, value in scores.items()})
                    score, highest = scores[model.task.metric], None if best.step is None else best.meta()["score"]
                    telemetry.judge(step, scores, model.task.metric, highest, best.step, model.positive)
                    if highest is None or score > highest:
                        best.save(running.whole(kept), e.position(step), {**identity, "score": score, **model.learnt})
                    stopped = bool(patience) and step - best.step >= patience
                if due("checkpoint", step) or stopped:
                    then = {"speed": meter.counts(), "stopped": stopped, "best": best.step}
                    latest.save(running.whole(), e.position(step), identity | then)
                meter.skip()
                if stopped:
                    telemetry.say(f"step {step}: stopped, as dev {model.metric_title} has not been better since step {best.step}")
                    break
            whole, compilations = running.whole(), compilations + running.program.compilations
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


class Window:
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


def in_parts(batch: Batch, parts: int, layout: parallel.Layout) -> Batch:
    """[R, ...] -> [parts, R / parts, ...], cut for the devices: what `train_step` takes."""
    return layout.shard(jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), batch), axis=1)
