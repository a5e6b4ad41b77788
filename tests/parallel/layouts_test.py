"""Test layouts (replicating, sharding and joining arrays) and programs (counting compilations and FLOPs)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.errors import InputError
from research.parallel import layouts
from research.parallel.layouts import Layout
from research.train.step import split_microbatches

pytestmark = pytest.mark.devices
LAYOUTS = [Layout(), Layout(1), Layout(4), Layout(8)]


def batch(rows=16):
    return {"tokens": np.arange(rows * 3).reshape(rows, 3), "weights": np.arange(rows, dtype=np.float32)[:, None]}


def test_the_tests_see_eight_devices():
    assert jax.local_device_count() == 8 and jax.default_backend() == "cpu"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_join_undoes_shard(layout):
    cut = layout.shard(batch())
    for name, array in batch().items():
        np.testing.assert_array_equal(layout.join(cut[name]), array)
        assert cut[name].shape == ((layout.devices, 16 // layout.devices, *array.shape[1:]) if layout.devices else array.shape)


def test_each_device_gets_consecutive_rows():
    cut = Layout(4).shard(batch())["weights"]
    np.testing.assert_array_equal(cut[1, :, 0], [4, 5, 6, 7])


@pytest.mark.parametrize("devices", [3, 5])
def test_a_number_of_rows_that_the_devices_do_not_divide_is_refused(devices):
    with pytest.raises(ValueError, match="reshape"):
        Layout(devices).shard(batch())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parts", [1, 2])
def test_every_row_is_in_one_microbatch_of_one_device(layout, parts):
    cut = split_microbatches(batch(), parts, layout)["weights"]
    each = 16 // parts // layout.multiple
    assert cut.shape == ((layout.devices,) if layout.devices else ()) + (parts, each, 1)
    assert sorted(cut.ravel().tolist()) == list(range(16))
    first_part = cut[:, 0] if layout.devices else cut[0]
    np.testing.assert_array_equal(first_part.ravel(), np.arange(16 // parts))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_first_undoes_replicate(layout):
    tree = {"a": np.arange(3.0, dtype=np.float32), "b": {"c": np.int32(7)}}
    copied = layout.replicate(tree)
    assert copied["a"].shape == ((layout.devices, 3) if layout.devices else (3,))
    for actual, expected in zip(jax.tree.leaves(layout.first(copied)), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(actual, expected)
    if layout.devices:
        np.testing.assert_array_equal(copied["a"][-1], tree["a"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_must_be_a_multiple_of_the_devices(layout):
    assert layout.multiple == max(1, layout.devices)


@pytest.mark.parametrize(("mode", "devices"), [("jit", 0), ("pmap", 8), ("auto", 8)])
def test_a_mode_determines_the_number_of_devices(mode, devices):
    assert layouts.layout(mode).devices == devices


def test_auto_is_jit_on_one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    assert layouts.layout("auto") == Layout() and layouts.layout("pmap") == Layout(1)


@pytest.mark.parametrize(("mode", "hint"), [("pmpa", "did you mean 'pmap'"), ("mesh", "not implemented yet")])
def test_an_unknown_mode_is_an_error(mode, hint):
    with pytest.raises(InputError, match=hint):
        layouts.layout(mode)


def total(state, frozen, batch, axis=None):
    """Add the sum of the batch's weights to the state: a minimal step."""
    return {"sum": state["sum"] + layouts.add_up(batch["weights"].sum(), axis)}, batch["tokens"] @ frozen


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_program_sums_over_devices_and_keeps_the_order_of_rows(layout):
    program, frozen = layout.compile(total), np.array([1.0, 0.0, 2.0], np.float32)
    state, rows = program(layout.replicate({"sum": jnp.zeros(())}), layout.replicate(frozen), layout.shard(batch()))
    assert float(layout.first(state)["sum"]) == 120.0
    np.testing.assert_array_equal(layout.join(rows), batch()["tokens"] @ frozen)
    if layout.devices:
        np.testing.assert_array_equal(state["sum"], np.full(layout.devices, 120.0))


def test_without_add_up_each_device_has_a_different_sum():
    layout = Layout(4)
    program = layout.compile(lambda state, frozen, batch, axis=None: layouts.add_up(batch["weights"].sum(), None))
    np.testing.assert_array_equal(program(np.zeros(4), np.zeros(4), layout.shard(batch())), [6, 22, 38, 54])


@pytest.mark.parametrize("layout", [Layout(), Layout(8)])
def test_a_program_counts_one_compilation_for_each_shape(layout):
    program, frozen = layout.compile(total), layout.replicate(np.ones(3, np.float32))
    state, counts = layout.replicate({"sum": jnp.zeros(())}), []
    assert (program.compilations, program.flops) == (0, 0.0)
    for rows in (16, 16, 32, 16, 32, 64):
        state, _ = program(state, frozen, layout.shard(batch(rows)))
        counts.append(program.compilations)
    assert counts == [1, 1, 2, 2, 2, 3]


def test_flops_are_of_the_latest_program_on_one_device():
    flops = {}
    for devices, rows in ((0, 64), (0, 128), (8, 64)):
        layout = Layout(devices)
        program = layout.compile(lambda state, frozen, batch, axis=None: batch["weights"] @ frozen)
        wide = {"weights": np.ones((rows, 32), np.float32)}
        program(layout.replicate(np.zeros(())), layout.replicate(np.ones((32, 32), np.float32)), layout.shard(wide))
        flops[devices, rows] = program.flops
    assert flops[0, 64] == pytest.approx(2 * 64 * 32 * 32, rel=0.05)
    assert flops[0, 128] == pytest.approx(2 * flops[0, 64], rel=0.05)
    assert flops[8, 64] == pytest.approx(flops[0, 64] / 8, rel=0.05)
