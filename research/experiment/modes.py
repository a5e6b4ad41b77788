"""The modes of the command line: train, evaluate, plan, export and predict, each for a config and a workdir."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console

from research import storage, weights
from research.adapt import adapted_model
from research.adapt.summary import summary as plan_summary
from research.data.describe import Lengths, truncation
from research.data.examples import fingerprint
from research.data.inputs import read_inputs, stream_inputs
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import embed, evaluations, export, initialize, summary
from research.experiment import predict as predictions
from research.experiment import workdir as workdirs
from research.experiment.experiment import Experiment
from research.experiment.results import describe
from research.parallel import layouts
from research.params.tree import Tree, digest, merge
from research.tasks import catalog
from research.tasks.base import Task
from research.tracking import confusion, curves
from research.train.checkpoint import Checkpoints
from research.train.evaluate import Evaluation
from research.train.loop import fit
from research.train.run import TrainingRun, check_identity
from research.train.trainers import SingleTrainer, Trainer


def do(mode: str, config: ConfigDict, workdir: Path, source: str | None = None, output: str | None = None, form: str | None = None) -> None:
    """Run a `--mode`. Print text for people to standard error and output for programs to standard output."""
    keep_programs()
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if mode == "train":
        summary.summarise(run(config, workdir, console), workdir, console)
    elif mode == "evaluate":
        print(json.dumps(evaluate_run(config, workdir, source, console)))
    elif mode == "plan":
        workdirs.check_same(workdir, config)
        planned = experiments.plan_of(config)
        console.print(*planned.data.notes, sep="\n")
        print(plan_summary(planned.model), end="")
    elif mode == "export":
        if not output:
            raise InputError("--mode=export needs --output=FOLDER")
        form = export.export(load_trained(config, workdir), weights.begin(config), workdir, form, Path(output))
        console.print(f"{output} is whole, in the format {form}; it was read back and gives the same logits.")
    elif mode == "predict":
        if not source:
            raise InputError("--mode=predict needs --input=FILE (.txt, .tsv or .jsonl) or --input=-")
        predictions.check_output(output)
        # Check a whole file before the model is loaded. Standard input can be read only once, so it is not checked first.
        total = None if source == "-" else sum(1 for _ in stream_inputs(source, catalog.of(config)))
        predictions.write(predict(config, workdir, source, console), output, total, console)
        if output:
            console.print(f"{total or 'all'} predictions are in {output}")
    elif mode == "embed":
        if not source:
            raise InputError("--mode=embed needs --input=FILE (.txt, .tsv or .jsonl) or --input=-")
        file = embed.check_output(output)
        trained = trained_checkpoint(workdir) is not None
        model = load_trained(config, workdir) if trained else embed.pretrained(config)
        count = embed.embed(embed.embedder(model), source, file, console)
        console.print(f"{output}: {count} vectors of {f'the encoder trained in {workdir}' if trained else 'the pretrained encoder'}")


def keep_programs() -> None:
    """Cache compiled programs on disk, in `$JAX_COMPILATION_CACHE_DIR` if it is set, else in the project's cache folder."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(storage.folder("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


def run(config: ConfigDict, workdir: Path, console: Console, build: Callable = experiments.build) -> dict[str, Any]:
    """Train, select the checkpoint with the best dev metric, evaluate it on dev and test, and return the contents of `result.json`.

    `build` makes the experiment of a config. A finished run is not run again; an unfinished one is resumed. Raise InputError where the
    workdir belongs to another config.
    """
    with workdirs.claimed(workdir, config) as finished:
        if finished:
            console.print(f"{workdir} is finished already; remove it or give another --workdir to run again. {workdirs.TRAIN_ON}")
            return finished
        experiment = build(workdirs.with_recorded_values(workdir, config))
        trainer = SingleTrainer(experiment)
        started = begin(experiment, workdir, console)
        fit([started], trainer)
        (measured,) = measure([started], trainer)
        return finish(started, measured, config, trainer.compilations)


def begin(experiment: Experiment, workdir: Path, console: Console) -> TrainingRun:
    """Write the config and the plan of an experiment to the workdir, print the plan, and return a run that is ready to train or resume."""
    lengths = {
        split: Lengths.of(batches.tokens)
        for split, batches in (("train", experiment.train), ("dev", experiment.dev), ("test", experiment.test))
    }
    console.print(*experiment.data.notes, truncation(lengths, experiment.config.max_length), sep="\n")
    workdirs.record(workdir, experiment.model.config)
    planned = plan_summary(experiment.model)
    storage.write_text(workdir / "plan.txt", planned)
    console.print(planned)
    started = TrainingRun(experiment, workdir, console)
    if started.start:
        console.print(f"{workdir}: resuming from step {started.start} of {experiment.total_steps}.")
    return started


class Measured(NamedTuple):
    """The selected parameters of a trained run, all that train in any phase, and their evaluations on dev and test."""

    trainable: Tree
    evaluations: dict[str, Evaluation]


def measure(runs: Sequence[TrainingRun | None], trainer: Trainer) -> list[Measured | None]:
    """Read the selected parameters of trained runs and evaluate them. Return None for a run that is None or has failed."""
    ready = {i: run for i, run in enumerate(runs) if run is not None and run.error is None}
    if not ready:
        return [None] * len(runs)
    selected = {i: run.best.restore_trainable(run.experiment.model.trainable) for i, run in ready.items()}
    experiment, params = next(iter(ready.values())).experiment, trainer.placed([selected.get(i) for i in range(len(runs))])
    splits = {split: trainer.evaluate(params, batches) for split, batches in (("dev", experiment.dev), ("test", experiment.test))}
    each = {i: Measured(trainable, {split: results[i] for split, results in splits.items()}) for i, trainable in selected.items()}
    return [each.get(i) for i in range(len(runs))]


def finish(run: TrainingRun, measured: Measured, config: ConfigDict, compilations: int, fleet: Sequence[str] = ()) -> dict[str, Any]:
    """Write predictions, plots and `result.json` of a trained run; return the contents of `result.json`. `fleet`: runs trained together."""
    experiment, workdir, best = run.experiment, run.workdir, run.best
    model = dataclasses.replace(experiment.model, trainable=measured.trainable)
    with futures.ThreadPoolExecutor(1) as executor:
        sha256 = executor.submit(lambda: digest(jax.tree.map(np.asarray, merge(model.trainable, model.frozen))))
        for split, evaluation in measured.evaluations.items():
            evaluations.write_predictions(
                model, experiment.data.splits[split], evaluation.checked(), workdir / "predictions" / f"{split}.jsonl"
            )
    c = experiment.config
    title = f"{c.task} · {c.weights.source or c.model} · {c.method} · seed {c.seed}"
    curves.draw(workdir, title, model.task, best.step)
    speed = run.meter.report(compilations, max(len(fleet), 1))
    result = describe(experiment, model, measured.evaluations, speed, best, sha256.result(), fleet)
    if "confusion" in result:
        confusion.draw(workdir / "confusion.png", np.asarray(result["confusion"]["test"]), result["labels"], f"{title}: test")
    result["config_hash"] = workdirs.config_hash(config)
    storage.write_json(workdir / "result.json", result)
    return result


def predict(config: ConfigDict, workdir: Path, source: str, console: Console = predictions.QUIET) -> Iterator[dict[str, Any]]:
    """Yield the predictions of the run in `workdir` for the texts of the file `source` ("-": standard input), as in `predict.stream`."""
    model = load_trained(config, workdir)
    return predictions.stream(model, layouts.layout(config.parallel), stream_inputs(source, catalog.of(config)), console)


def evaluate_run(
    config: ConfigDict,
    workdir: Path,
    source: str | None = None,
    console: Console = Console(quiet=True),  # noqa: B008
) -> dict[str, dict[str, float]]:
    """Evaluate the selected checkpoint of the run in `workdir` on dev and test, or on the labelled examples in the file `source`.

    Write metrics and predictions to a folder in `workdir`/evaluations, leave the other files of the run unchanged, and return the metrics.
    Raise InputError where labels are missing or are not classes of the trained model.
    """
    if source:
        examples = read_inputs(source, catalog.of(config))
        if not examples.labels:
            raise InputError(f"{source}: no labels there, so nothing can be scored; --mode=predict writes the predictions")
        model, splits = load_trained(config, workdir), {"input": examples}
        data = {"source": source, "fingerprint": fingerprint({"test": examples}, model.task)}
    else:
        dataset = experiments.load_data(config)
        console.print(*dataset.notes, sep="\n")
        model = load_trained(config, workdir, dataset.task, ignore=(*workdirs.USE, "data."))
        splits = {split: dataset.splits[split] for split in ("dev", "test")}
        data = {"source": dataset.source, "fingerprint": dataset.fingerprint}
        evaluations.compare(workdir, dataset.fingerprint, console)
    return evaluations.measure(model, splits, data, workdir, config, console)


def trained_checkpoint(workdir: Path) -> Checkpoints | None:
    """Return the selected checkpoint of the run in `workdir`, None if there is none."""
    best = Checkpoints(workdir / "checkpoints", "best") if (workdir / "checkpoints" / "best").is_dir() else None
    return None if best is None or best.step is None else best


def load_trained(
    config: ConfigDict, workdir: Path, task: Task | None = None, ignore: tuple[str, ...] = workdirs.USE
) -> adapted_model.AdaptedModel:
    """Return the model of `config` with the selected checkpoint of the run in `workdir`.

    Without a checkpoint there, but with a config that loads a trained head, return the model as loaded, for the fitted `task` if it is
    given; else its classes are those of the task, else those of the head. `ignore` is as in `workdir.check_same`. Raise InputError where
    there is neither, where `check_same` raises it, or where the pretrained weights have changed since the training.
    """
    config = workdirs.with_recorded_values(workdir, config)
    best = trained_checkpoint(workdir)
    if best is None and (config.weights.head or config.weights.adapter) and not (workdir / "config.json").exists():
        head_labels, task = weights.head_labels(config), task or catalog.of(config)
        return initialize.build_model(config, task if task.classes else task.of_head(head_labels))
    if best is None:
        raise InputError(f"{workdir}: no trained model there; run --mode=train with this config and --workdir first")
    workdirs.check_same(workdir, config, ignore)
    meta = best.meta()
    model = initialize.build_model(config, catalog.of(config).with_learnt(meta), tuple(meta["words"]))
    check_identity(workdir, meta, {"weights": model.weights_sha256})
    return dataclasses.replace(model, trainable=best.restore_trainable(model.trainable))
