"""Test that checkpoints restore any tree to the bit, and only into the tree that was saved."""

import gc

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from research.errors import InputError
from research.train import checkpoint
from research.train.checkpoint import Checkpoints
from research.train.step import State, init_state

TX = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


def some(rename=lambda name: name, wide=70_000, deep=3, dtype=jnp.bfloat16, wide_dtype=jnp.float32):
    rng = np.random.default_rng(0)
    layers = {rename(f"layer_{i}"): {"kernel": rng.normal(size=(deep, 5)), "scale": np.asarray(rng.normal())} for i in range(20)}
    trainable = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), {"encoder": layers})
    trainable |= {"head": {"wide": jnp.asarray(rng.normal(size=wide), wide_dtype)}}
    return trainable | {"delta": {"low": jnp.asarray(rng.normal(size=4), dtype)}}


def state_of(trainable, step=7):
    grads = jax.tree.map(jnp.ones_like, trainable)
    return State(jnp.asarray(step, jnp.int32), trainable, TX.update(grads, TX.init(trainable), trainable)[1])


@pytest.fixture
def saved(tmp_path):
    for kind in ("latest", "best"):
        Checkpoints(tmp_path, kind).save(state_of(some()), {"epoch": 1, "batch": 2}, {"score": 0.5})
    return tmp_path


def test_a_state_comes_back_as_it_was(saved):
    latest, state = Checkpoints(saved, "latest"), state_of(some())
    restored = latest.restore(init_state(jax.tree.map(jnp.zeros_like, state.trainable), TX))
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    for new, old in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert new.dtype == old.dtype and new.shape == old.shape and np.array_equal(new, old)
    assert (latest.step, latest.data(), latest.meta()) == (7, {"epoch": 1, "batch": 2}, {"score": 0.5})


@pytest.mark.parametrize(
    "other",
    [
        {"rename": lambda name: name.replace("1", "one")},
        {"wide": 70_001},
        {"deep": 2},
        {"dtype": jnp.float32},
        {"wide_dtype": jnp.bfloat16},
    ],
    ids=["names", "large shape", "small shape", "small dtype", "large dtype"],
)
def test_a_state_of_another_structure_is_refused(saved, other):
    with pytest.raises(InputError, match="latest: saved by another version") as error:
        Checkpoints(saved, "latest").restore(state_of(some(**other)))
    assert "\n" not in str(error.value)


def test_a_state_without_a_recorded_structure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "STRUCTURES", "other")
    Checkpoints(tmp_path, "latest").save(state_of(some()), {}, {})
    monkeypatch.undo()
    with pytest.raises(InputError, match="latest: saved by another version"):
        Checkpoints(tmp_path, "latest").restore(state_of(some()))


def test_a_state_without_optimizer_arrays_comes_back(tmp_path):
    state = init_state(some(), optax.sgd(0.1))
    Checkpoints(tmp_path, "latest").save(state, {}, {})
    restored = Checkpoints(tmp_path, "latest").restore(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state) and not jax.tree.leaves(restored.opt_state)


def test_what_a_run_keeps_is_read_by_name_with_orbax_alone(saved):
    restored = ocp.StandardCheckpointer().restore(saved / "best" / "7" / "trainable")
    assert jax.tree.structure(restored) == jax.tree.structure(some())
    assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(restored), jax.tree.leaves(some()), strict=True))


def damaged(data: bytes) -> list[bytes]:
    half = len(data) // 2
    return [data[:half], bytes(len(data)), data[:half] + bytes(min(4096, len(data) - half)) + data[half + 4096 :], b"[]"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of reads that tensorstore had under way
@pytest.mark.parametrize("kind", ["latest", "best"])
def test_a_damaged_file_is_one_line_that_names_the_checkpoint_or_changes_nothing(saved, kind):
    state, refused = state_of(some()), 0
    files = [path for path in sorted((saved / kind / "7").rglob("*")) if path.is_file() and path.stat().st_size]
    for path in files:
        data = path.read_bytes()
        for change in damaged(data):
            path.write_bytes(change)
            try:
                checkpoints = Checkpoints(saved, kind)
                there = (
                    checkpoints.restore(state)
                    if kind == "latest"
                    else state.replace(trainable=checkpoints.restore_trainable(state.trainable))
                )
                assert (checkpoints.data(), checkpoints.meta()) == ({"epoch": 1, "batch": 2}, {"score": 0.5})
            except InputError as error:
                refused += 1
                assert str(error).startswith(f"{saved / kind}: the checkpoint is damaged (") and "\n" not in str(error)
            else:
                assert all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(there), jax.tree.leaves(state), strict=True)), path
        path.write_bytes(data)
    gc.collect()
    assert refused > len(files)
