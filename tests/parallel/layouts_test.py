"""Where things are: cut, copied, put together, compiled and counted."""

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


def test_shard_gives_each_device_neighbouring_rows():
    cut = Layout(4).shard(batch())["weights"]
    np.testing.assert_array_equal(cut[1, :, 0], [4, 5, 6, 7])


@pytest.mark.parametrize("devices", [3, 5])
def test_rows_that_do_not_divide_are_refused_and_not_dropped(devices):
    with pytest.raises(ValueError, match="reshape"):
        Layout(devices).shard(batch())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("parts", [1, 2])
def test_in_parts_puts_every_row_into_one_part_of_one_device(layout, parts):
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
    for one, other in zip(jax.tree.leaves(layout.first(copied)), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(one, other)
    if layout.devices:
        np.testing.assert_array_equal(copied["a"][-1], tree["a"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_are_a_multiple_of_the_devices(layout):
    assert layout.multiple == max(1, layout.devices)


@pytest.mark.parametrize(("mode", "devices"), [("jit", 0), ("pmap", 8), ("auto", 8)])
def test_a_mode_says_how_many_devices_there_are(mode, devices):
    assert layouts.layout(mode).devices == devices


def test_auto_is_jit_where_there_is_one_device(monkeypatch):
    monkeypatch.setattr(jax, "local_device_count", lambda: 1)
    assert layouts.layout("auto") == Layout() and layouts.layout("pmap") == Layout(1)


@pytest.mark.parametrize(("mode", "hint"), [("pmpa", "did you mean 'pmap'"), ("mesh", "not built yet")])
def test_a_mode_that_is_not_there_is_an_error(mode, hint):
    with pytest.raises(InputError, match=hint):
        layouts.layout(mode)


def total(state, frozen, batch, axis=None):
    """A step that counts: the state grows by the sum of the weights."""
    return {"sum": state["sum"] + layouts.add_up(batch["weights"].sum(), axis)}, batch["tokens"] @ frozen


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_program_adds_up_over_devices_and_keeps_rows_in_order(layout):
    program, frozen = layout.compile(total), np.array([1.0, 0.0, 2.0], np.float32)
    state, rows = program(layout.replicate({"sum": jnp.zeros(())}), layout.replicate(frozen), layout.shard(batch()))
    assert float(layout.first(state)["sum"]) == 120.0
    np.testing.assert_array_equal(layout.join(rows), batch()["tokens"] @ frozen)
    if layout.devices:
        np.testing.assert_array_equal(state["sum"], np.full(layout.devices, 120.0))


def test_without_add_up_each_device_would_have_its_own_sum():
    layout = Layout(4)
    alone = layout.compile(lambda state, frozen, batch, axis=None: layouts.add_up(batch["weights"].sum(), None))
    np.testing.assert_array_equal(alone(np.zeros(4), np.zeros(4), layout.shard(batch())), [6, 22, 38, 54])


@pytest.mark.parametrize("layout", [Layout(), Layout(8)])
def test_a_program_is_compiled_once_for_each_shape_and_says_so(layout):
    program, frozen = layout.compile(total), layout.replicate(np.ones(3, np.float32))
    state, seen = layout.replicate({"sum": jnp.zeros(())}), []
    assert (program.compilations, program.flops) == (0, 0.0)
    for rows in (16, 16, 32, 16, 32, 64):
        state, _ = program(state, frozen, layout.shard(batch(rows)))
        seen.append(program.compilations)
    assert seen == [1, 1, 2, 2, 2, 3]


def test_flops_are_those_of_the_latest_compilation_on_one_device():
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
