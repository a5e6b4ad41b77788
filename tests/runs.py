"""Small runs for tests: a config by file and words, and the whole command in this process or in one of its own."""

import contextlib
import functools
import importlib
import io
import os
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from absl import flags as absl_flags

from research.adapt import methods
from research.adapt.adapted_model import AdaptedModel
from research.config import fields
from research.experiment import build as experiments
from research.experiment import initialize
from research.parallel import cpu
from research.params.plan import Plan
from research.params.tree import Tree, merge
from research.tasks import catalog

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "common", "options"))
DATA = Path(os.environ.get("RESEARCH_DATA") or ROOT.parent / "shared" / "data")


def config(name: str = "imdb", arg: str = "smoke", **changes):
    """Return the config of configs/NAME.py:ARG with fields changed; a double underscore stands for a dot."""
    c = importlib.import_module(f"configs.{name}").get_config(arg)
    c.lock()
    changes.setdefault("parallel", "jit")  # a few tests see eight devices
    return experiments.resolve(fields.override(c, {field.replace("__", "."): value for field, value in changes.items()}))


def build_model(config, labels: tuple[str, ...], words: tuple[str, ...] = ()) -> AdaptedModel:
    """Return the model of a config for classes `labels`."""
    return initialize.build_model(config, catalog.of(config).with_learnt({"labels": labels}), words)


@functools.cache
def _tiny() -> tuple[tuple[str, ...], Tree]:
    """Return the stages of the tiny model, and the shapes of its parameters and of a head's."""
    model = build_model(config(), ("neg", "pos"))
    return model.encoder.stages, jax.eval_shape(merge, model.trainable, model.frozen)


def plan(method: str, **changes) -> Plan:
    """Return the plan of a method for the tiny model, made as in a run but without computing anything."""
    c, (stages, shapes) = config(method=method, **{"precision": "float32"} | changes), _tiny()
    recipe = methods.recipe(stages, c)
    with_deltas = functools.partial(initialize._with_deltas, recipe)
    return recipe.plan(jax.eval_shape(with_deltas, shapes, initialize.named_keys(0)), c.freeze, c.no_decay)


@contextlib.contextmanager
def compile_quickly(patch, folder: str) -> Iterator[None]:
    """Compile the programs of steps inside the context with little optimisation, and cache all compiled programs in `folder`."""
    original = jax.stages.Lowered.compile
    patch.setattr(jax.stages.Lowered, "compile", lambda lowered: original(lowered, {"xla_backend_optimization_level": 0}))
    new = {"jax_compilation_cache_dir": folder, "jax_persistent_cache_min_compile_time_secs": 0.3}
    before = {name: getattr(jax.config, name) for name in new}
    for name, value in new.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def command(*flags: str) -> list[str]:
    """Return the command line of a run."""
    return [sys.executable, "-m", "research.main", *flags]


def environment(devices: int = 1) -> dict[str, str]:
    """Return the environment of a run on that many virtual CPU devices."""
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": str(ROOT)}


def start(*flags: str, devices: int = 1, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess:
    """Run `python -m research.main` with the flags to its end."""
    done = subprocess.run(command(*flags), env=environment(devices), cwd=ROOT, input=stdin, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stderr
    return done


def main(*flags: str, module: str = "research.main", stdin: str = "", check: bool = True) -> subprocess.CompletedProcess:
    """Do what `python -m MODULE` does with the flags, in this process: seconds faster than `start`, and with its devices."""
    streams = [io.TextIOWrapper(io.BytesIO(data), encoding="utf8") for data in (stdin.encode(), b"", b"")]
    before = set(absl_flags.FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu, "prepare", lambda: None)  # it would start pytest again
        patch.setattr(sys, "argv", [module, *flags])
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        code = _exit_code(lambda: runpy.run_module(module, run_name="__main__", alter_sys=True))
    for name in set(absl_flags.FLAGS) - before:
        if name.startswith("config.") or not absl_flags.FLAGS.find_module_defining_flag(name).startswith("absl."):
            delattr(absl_flags.FLAGS, name)  # the next program defines its own
    absl_flags.FLAGS.unparse_flags()
    for stream in streams[1:]:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode() for stream in streams[1:])
    assert not check or code == 0, err
    return subprocess.CompletedProcess(list(flags), code, out, err)


def _exit_code(program) -> int:
    try:
        program()
    except SystemExit as end:
        return end.code or 0
    return 0
