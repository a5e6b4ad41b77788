"""Feature cache: hidden states after the frozen stages, computed once and kept on disk.

Below the first trainable stage they depend only on the example, so all epochs, seeds, heads and methods with the same frozen stages
share them.

Letters: T tokens of a split, concatenated; D features of all cached stages (one stage, unless the method's reader uses several).
"""

import hashlib
import os
import weakref
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
from rich.console import Console
from rich.progress import track

from research import storage
from research.data import pipeline
from research.data.batches import Batches
from research.data.encode import Tokens
from research.errors import InputError
from research.parallel.layouts import Layout
from research.params.tree import digest, flatten, split
from research.tasks.base import TOKEN, Column

CONSOLE = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
NAME = "hidden"  # key of the column in batches
VERSION = 3  # part of the key: raise it when hidden states change for the same parameters and tokens


def with_states(model, batches: Batches, layout: Layout, budget_gb: float) -> Batches:
    """Return `batches` with the hidden states of the frozen stages of `model` as the column `hidden`, if any stage is frozen."""
    hidden = states(model, batches.tokens, layout, budget_gb)
    return batches if hidden is None else batches.with_column(NAME, Column(TOKEN, hidden))


def file(batches: Batches) -> str | None:
    """Return the file with the cached hidden states that `batches` hold, None if they hold none."""
    column = batches.columns.get(NAME)
    return column and str(column.values.filename)


def states(model, tokens: Tokens, layout: Layout, budget_gb: float) -> np.ndarray | None:
    """Return the hidden states [T, D] of the frozen stages of `model`, memory-mapped; None if no stage is frozen.

    They are bfloat16, or float32 if the model computes in float32. If they are not in the cache, their size is printed and they are
    computed. Raises InputError if the size exceeds `budget_gb` (GB of 10**9 bytes).
    """
    below, shape, dtype = needs(model, tokens)
    if not below:
        return None
    path = storage.folder("prefix") / f"{key(model, tokens, below)}.{dtype.name}"
    size = shape[0] * shape[1] * dtype.itemsize
    if not storage.intact(path, size):
        check_size(model, tokens, budget_gb)
        CONSOLE.print(f"computing the frozen stages once: {size / 1e6:.0f} MB in {path}")
        write(path, model, tokens, layout, below, shape, dtype)
    return np.memmap(path, dtype=dtype, mode="r", shape=shape)


def needs(model, tokens: Tokens) -> tuple[int, tuple[int, int], np.dtype]:
    """Return the number of frozen stages, and the shape and dtype of their cached hidden states for `tokens`."""
    below = model.plan.frozen_stages(model.encoder.stages)
    dtype = np.dtype(np.float32 if model.config.precision == "float32" else ml_dtypes.bfloat16)
    return below, (int(tokens.offsets[-1]), sum(model.widths[i] for i in model.reads(below))), dtype


def check_size(model, tokens: Tokens, budget_gb: float) -> None:
    """Raise InputError if the cached hidden states exceed `budget_gb`. The model's parameters may be shapes instead of arrays."""
    below, shape, dtype = needs(model, tokens)
    size = shape[0] * shape[1] * dtype.itemsize if below else 0
    if size > budget_gb * 1e9:
        what = f"what the {below} frozen stages give for {len(tokens):,} examples takes {size / 1e9:.2g} GB"
        raise InputError(f"{what}, over prefix_cache_gb={budget_gb:g}; raise it, or set it to 0 to compute it again in every step")


def key(model, tokens: Tokens, below: int) -> str:
    """Return the sha256 of all that the hidden states depend on, such as frozen parameters, tokens, number of stages and precision."""
    names = [name for name in model.plan.entries if name.startswith("encoder/") and name.split("/")[1] in model.encoder.stages[:below]]
    settings = VERSION, below, model.reads(below), model.config.precision, model.encoder.config, tokens.first_position
    sha = hashlib.sha256(" ".join(map(str, settings)).encode())
    for name, leaf in flatten(split(model.frozen, names)[0]).items():
        sha.update(f"{name} {leaf_digest(leaf)}".encode())
    for array in (tokens.ids, tokens.types, tokens.offsets):
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


_DIGESTS: dict[int, str] = {}


def leaf_digest(leaf: np.ndarray | jax.Array) -> str:
    """Return the sha256 of an array. It is remembered as long as the array lives, since runs, phases and splits share arrays."""
    if id(leaf) not in _DIGESTS:
        _DIGESTS[id(leaf)] = digest({"": np.asarray(leaf)})
        weakref.finalize(leaf, _DIGESTS.pop, id(leaf), None)
    return _DIGESTS[id(leaf)]


def write(path: Path, model, tokens: Tokens, layout: Layout, below: int, shape: tuple[int, int], dtype: np.dtype) -> None:
    """Compute the hidden states and write them atomically to `path`, with a seal."""

    def step(trainable, frozen, batch, axis):
        return model.below(frozen, batch, below)

    program, frozen = layout.compile(step), layout.replicate(model.frozen)
    size = pipeline.eval_batch_size(model, tokens, layout.multiple)
    batches = Batches(tokens, {}, size, seed=0, multiple=layout.multiple)
    with storage.atomic_write(path) as part:
        with part.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, shape[0] * shape[1] * dtype.itemsize)  # a full disk is an error here, not a crash later
        out = np.memmap(part, dtype=dtype, mode="r+", shape=shape)
        for batch in track(batches.epoch(0), "frozen stages", total=batches.steps, console=CONSOLE, transient=True):
            hidden = layout.join(program({}, frozen, layout.shard(batch)))
            places, members = batches.members(batch, TOKEN)
            out[members] = hidden[places]
        out.flush()
        storage.seal(part)
