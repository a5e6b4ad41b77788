"""What each `--mode` does with a config and a workdir."""

import dataclasses
import hashlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table

from research import cache, parallel, telemetry, train
from research import experiment as experiments
from research.checkpoint import Checkpoints
from research.data.sources import read_inputs
from research.errors import InputError
from research.evaluate import evaluate, prediction_rows, write_lines
from research.params.tree import count, digest, merge
from research.tasks import catalog


def do(mode: str, config: ConfigDict, workdir: Path, source: str | None = None, output: str | None = None) -> None:
    """Runs a `--mode` and prints what it found: what people read to standard error, what programs read to standard output."""
    jax.config.update("jax_compilation_cache_dir", str(cache.folder("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if mode == "train":
        summarise(run(config, workdir, console), workdir, console)
    elif mode == "evaluate":
        print(json.dumps(evaluate_run(config, workdir)))
    elif mode == "plan":
        labels = experiments.load_data(config).labels
        print(experiments.build_model(config, labels).plan.render(), end="")
    elif mode == "predict":
        if not source:
            raise InputError("--mode=predict needs --input=FILE (.txt, .tsv or .jsonl) or --input=-")
        rows = predict(config, workdir, source)
        if output:
            write_lines(output, rows)
        else:
            sys.stdout.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def summarise(result: dict[str, Any], workdir: Path, console: Console) -> None:
    """The few lines at the end of a run: how good, at what cost, and what to try next."""
    metric, speed, params = result["selection"]["metric"], result["speed"], result["params"]
    dev, test = (result["metrics"][split] for split in ("dev", "test"))
    c = result["config"]
    title = f"{c['task']} ({c['data']['source']}) · {result['weights']['source']} · {c['method']} · seed {c['seed']}"
    table = Table(title=title, title_justify="left")
    for name in ("split", "accuracy", "f1", "macro_f1", "loss"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, scores in (("dev", dev), ("test", test)):
        table.add_row(split, *(f"{scores[name]:.4f}" for name in ("accuracy", "f1", "macro_f1", "loss")))
    console.print(table)
    console.print(
        f"kept step {result['selected_step']} (best dev {metric}); trained {params['trainable']:,} of {params['total']:,} parameters "
        f"({params['checkpoint_bytes'] / 1e6:.1f} MB saved)"
    )
    console.print(
        f"{speed['step_flops'] / 1e9:.1f} GFLOP a step, {speed['examples_per_s'] or 0:.0f} examples/s, {speed['real_tokens_per_s'] or 0:,.0f} "
        f"real tokens/s, {speed['padding_fraction'] or 0:.1%} padding, {speed['waiting_fraction'] or 0:.1%} waiting for data, "
        f"{speed['peak_memory_bytes'] / 2**30:.1f} GiB at most, {speed['compilations']} compilations"
        + (f", {speed['mfu']:.0%} MFU" if speed["mfu"] else "")
    )
    console.print(f"everything is in {workdir}: result.json, curves.png, predictions/, checkpoints/")
    console.print(
        "next: --config.weights.source=scratch shows what pretraining is worth; --config.method=linear_probe or top_k transfers for less;\n"
        "--mode=predict --input=FILE.txt uses the model; :data=files --config.data.path=FOLDER takes your own data"
    )


def run(config: ConfigDict, workdir: Path, console: Console) -> dict[str, Any]:
    """Trains, keeps what is best on dev, reports test once, and writes the workdir; returns what is in `result.json`.

    A finished run is only reported; an unfinished one goes on. Raises InputError when the workdir is another config's.
    """
    if finished := claim(workdir, config):
        console.print(f"{workdir} is finished already; remove it or give another --workdir to run again.")
        return finished
    e = experiments.build(config)
    text = e.model.plan.render()
    (workdir / "plan.txt").write_text(text)
    console.print(text, highlight=False)
    checkpoints = {kind: Checkpoints(workdir / "checkpoints", kind) for kind in ("latest", "best")}
    if checkpoints["latest"].step:
        console.print(f"{workdir}: going on from step {checkpoints['latest'].step} of {e.total_steps}.")
    stepped, evaluated = train.train_program(e), train.eval_program(e.model, e.layout)
    meter = train.fit(e, workdir, stepped, evaluated, **checkpoints)
    kept = dataclasses.replace(e.model, trainable=checkpoints["best"].restore_trainable(e.model.trainable))
    metrics = {split: score(kept, e.data.splits[split], e.layout, evaluated, predictions(workdir, split)) for split in ("dev", "test")}
    telemetry.draw_curves(workdir)
    speed = meter.report(stepped.flops, stepped.compilations + evaluated.compilations)
    result = describe(e, kept, metrics, speed, checkpoints["best"])
    write_json(workdir / "result.json", result)
    return result


def score(model: experiments.Model, examples, layout: parallel.Layout, program: parallel.Program, path: Path) -> dict[str, float]:
    """Metrics of `model` on `examples`; its predictions go to `path`."""
    trees = (layout.replicate(tree) for tree in (model.trainable, model.frozen))
    totals, logits = evaluate(program, *trees, model.batches(examples, layout), layout)
    write_lines(path, prediction_rows(examples, logits, model.kind.predictions, model.labels))
    return model.kind.scores(totals)


def predictions(workdir: Path, split: str) -> Path:
    """Where the predictions for a split go."""
    return workdir / "predictions" / f"{split}.jsonl"


def evaluate_run(config: ConfigDict, workdir: Path) -> dict[str, dict[str, float]]:
    """The kept parameters of the run in `workdir` on dev and test."""
    data = experiments.load_data(config)
    model = load_trained(config, workdir)
    if data.labels != model.labels:
        raise InputError(f"{workdir}: trained on labels {', '.join(model.labels)}, but the data has {', '.join(data.labels)}")
    layout = parallel.layout(config.parallel)
    program = train.eval_program(model, layout)
    return {split: score(model, data.splits[split], layout, program, predictions(workdir, split)) for split in ("dev", "test")}


def predict(config: ConfigDict, workdir: Path, source: str) -> list[dict[str, Any]]:
    """One dict for each text of the file `source` ("-" is standard input): id, prediction, probabilities; in order."""
    examples = read_inputs(source, catalog.get(config.task))
    model, layout = load_trained(config, workdir), parallel.layout(config.parallel)
    program = train.eval_program(model, layout)
    trees = (layout.replicate(tree) for tree in (model.trainable, model.frozen))
    unlabelled = dataclasses.replace(examples, labels=())
    _, logits = evaluate(program, *trees, model.batches(unlabelled, layout), layout)
    return [{"id": id, **said} for id, said in zip(examples.ids, model.kind.predictions(logits, model.labels), strict=True)]


def load_trained(config: ConfigDict, workdir: Path) -> experiments.Model:
    """The model of `config` with the kept parameters of the run in `workdir`. Raises InputError where there is none."""
    best = Checkpoints(workdir / "checkpoints", "best") if (workdir / "checkpoints" / "best").is_dir() else None
    if best is None or best.step is None:
        raise InputError(f"{workdir}: no trained model there; run --mode=train with this config and --workdir first")
    _check_same(workdir, config)
    model = experiments.build_model(config, tuple(best.meta()["labels"]))
    return dataclasses.replace(model, trainable=best.restore_trainable(model.trainable))


def claim(workdir: Path, config: ConfigDict) -> dict[str, Any] | None:
    """Makes the workdir this config's own. Returns the result where the run is finished."""
    workdir.mkdir(parents=True, exist_ok=True)
    if (workdir / "config.json").exists():
        _check_same(workdir, config)
    else:
        write_json(workdir / "config.json", config.to_dict())
    result = workdir / "result.json"
    return json.loads(result.read_text()) if result.exists() else None


def config_hash(config: ConfigDict) -> str:
    """sha256 over every field of the config."""
    return hashlib.sha256(json.dumps(config.to_dict(), sort_keys=True).encode()).hexdigest()


def default_workdir(config: ConfigDict) -> Path:
    """runs/TASK-MODEL-METHOD-HASH: the same config comes back to the same place."""
    return Path("runs") / f"{config.task}-{config.model}-{config.method}-{config_hash(config)[:8]}"


def _check_same(workdir: Path, config: ConfigDict) -> None:
    before, now = _flat(json.loads((workdir / "config.json").read_text())), _flat(config.to_dict())
    changed = [name for name in sorted(before | now) if before.get(name) != now.get(name)]
    if changed:
        name = changed[0]
        more = f" (and {len(changed) - 1} more fields)" if len(changed) > 1 else ""
        raise InputError(
            f"{workdir} belongs to a different config: {name} is {before.get(name)!r} there and {now.get(name)!r} now{more}; "
            "give another --workdir"
        )


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def describe(e: experiments.Experiment, kept: experiments.Model, metrics: dict, speed: dict, best: Checkpoints) -> dict[str, Any]:
    """The contents of `result.json`. `params.sha256` is over the parameters that were kept and tested, frozen ones included."""
    params = merge(kept.trainable, kept.frozen)
    return {
        "status": "finished",
        "config": e.config.to_dict(),
        "config_hash": config_hash(e.config),
        "seed": e.config.seed,
        "selected_step": best.step,
        "selection": {"split": "dev", "metric": kept.task.metric},
        "metrics": metrics,
        "params": {
            "total": count(params),
            "trainable": count(kept.trainable),
            "checkpoint_bytes": best.bytes(),
            "sha256": digest(jax.tree.map(np.asarray, params)),
        },
        "speed": speed,
        "weights": {
            "source": e.config.weights.source or e.config.model,
            "sha256": kept.weights_sha256,
        },
        "data": {
            "source": e.data.source,
            "fingerprint": e.data.fingerprint,
            "sizes": {split: len(examples) for split, examples in e.data.splits.items()},
        },
        "environment": {
            "python": platform.python_version(),
            "jax": jax.__version__,
            "devices": [str(device.device_kind) for device in jax.devices()],
            "argv": sys.argv,
        },
    }


def write_json(path: Path, value: Any) -> None:
    """Writes JSON atomically: the file is whole or not there."""
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
    os.replace(part, path)
