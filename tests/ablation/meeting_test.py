"""Members that compute together get what each would get alone, whoever else is there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.ablation import meeting as meetings
from research.ablation.meeting import Everybodys, Meeting, Seat
from research.parallel.layouts import Layout

BASE = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture(autouse=True, params=[1e9, 0.0], ids=["as one", "in threads"])
def much(request, monkeypatch):
    """From how many FLOPs on a member's step is started by itself."""
    monkeypatch.setattr(meetings, "MUCH", request.param)
    return request.param


def step(state, frozen, batch, *, axis, factor=1.0):
    return state + factor * (batch["x"] @ frozen["base"]).sum(0), (batch["x"] @ frozen["base"]).mean()


def member(layout, number, steps=4, fails=None, factor=1.0):
    """A run of a few steps: its last state and the sums it saw."""
    program, frozen = layout.compile(functools.partial(step, factor=factor)), layout.place({"base": BASE})
    state, seen = layout.place(np.full(4, number, np.float32)), []
    for i in range(steps):
        if i == fails:
            return "left"
        rows = np.random.default_rng((number, i)).normal(size=(2, 3)).astype(np.float32)
        state, total = program(state, frozen, layout.shard({"x": rows}))
        seen.append(float(total))
    return np.asarray(state), seen, program.compilations


def meeting(numbers, kinds=None):
    kinds = kinds or dict.fromkeys(map(str, numbers), "one")
    table = Meeting(kinds, [BASE])
    return table, Seat(meeting=table)


def test_each_gets_what_it_would_get_alone():
    table, seat = meeting(range(3))
    together = table.hold({str(n): functools.partial(member, seat, n) for n in range(3)})
    for n in range(3):
        alone = member(Layout(), n)
        np.testing.assert_allclose(together[str(n)][0], alone[0], rtol=1e-6)
        np.testing.assert_allclose(together[str(n)][1], alone[1], rtol=1e-6)
        assert together[str(n)][2] == alone[2] == 1
    assert np.abs(together["0"][0] - together["1"][0]).max() > 1


def test_what_a_member_computes_by_itself_is_to_the_bit_what_it_computes_alone(much):
    table, seat = meeting(range(8))
    together = table.hold({str(n): functools.partial(member, seat, n, steps=8) for n in range(8)})
    alone = {str(n): member(Layout(), n, steps=8) for n in range(8)}
    if not much:
        assert all((together[name][0] == alone[name][0]).all() and together[name][1] == alone[name][1] for name in alone)
    assert (together["0"][0] != alone["1"][0]).all()


def test_who_leaves_changes_nothing_for_the_others_and_who_comes_later_neither():
    results = []
    for lengths in ((4, 4, 4), (4, 2, 0)):
        table, seat = meeting(range(3))
        results.append(table.hold({str(n): functools.partial(member, seat, n, fails=length) for n, length in enumerate(lengths)}))
    assert results[1]["1"] == results[1]["2"] == "left"
    assert results[0]["0"][1] == results[1]["0"][1] and (results[0]["0"][0] == results[1]["0"][0]).all()
    table, seat = meeting(range(3))
    (alone,) = table.hold({"0": functools.partial(member, seat, 0)}).values()
    assert (alone[0] == results[0]["0"][0]).all()


def test_numbers_of_kinds_are_each_its_own_and_a_ghost_stands_for_its_kind():
    factors = {"a": 1.0, "b": 3.0}
    runs = []
    for members in ("ab", "b"):
        table = Meeting({name: name for name in factors}, [BASE])
        functions = {name: functools.partial(member, Seat(meeting=table), 7, factor=factors[name]) for name in factors}
        runs.append(table.hold({n: functions[n] for n in members}, {n: functions[n] for n in factors if n not in members}))
    assert runs[1].keys() == {"b"} and (runs[1]["b"][0] == runs[0]["b"][0]).all()
    for name, factor in factors.items():
        np.testing.assert_allclose(runs[0][name][0], member(Layout(), 7, factor=factor)[0], rtol=1e-5)
    assert np.abs(runs[0]["a"][0] - runs[0]["b"][0]).max() > 1


def test_what_is_everybodys_is_computed_once():
    def heavy(state, frozen, batch, *, axis):
        return state + (batch["x"] @ frozen["base"] @ frozen["base"].T).sum(), 0

    def one(seat, shard, number):
        program = seat.compile(heavy)
        program(jnp.float32(number), seat.place({"base": BASE}), getattr(seat, shard)({"x": np.ones((64, 3), np.float32)}))
        return program.flops

    flops = {}
    for shard in ("shard", "shard_same"):
        table, seat = meeting(range(4))
        flops[shard] = table.hold({str(n): functools.partial(one, seat, shard, n) for n in range(4)})["0"]
    assert flops["shard_same"] < 0.4 * flops["shard"]


def test_an_error_is_for_those_who_took_part():
    def wrong(state, frozen, batch, *, axis):
        raise ValueError("no such step")

    def one(seat):
        try:
            seat.compile(wrong)(jnp.zeros(2), {}, {"x": np.zeros((1, 1))})
        except ValueError as error:
            return str(error)

    table, seat = meeting(range(3))
    ended = table.hold({"0": lambda: one(seat), "1": lambda: one(seat), "2": functools.partial(member, seat, 2)})
    assert ended["0"] == ended["1"] == "no such step"
    np.testing.assert_allclose(ended["2"][0], member(Layout(), 2)[0], rtol=1e-6)
    with pytest.raises(KeyError):
        meeting(range(2))[0].hold({"0": lambda: {}["nothing"]})


def test_batches_that_should_be_everybodys_but_differ_are_not_mixed_up():
    def one(seat, number):
        program = seat.compile(step)
        rows = np.full((2, 3), number, np.float32).view(Everybodys)
        return np.asarray(program(jnp.zeros(4), seat.place({"base": BASE}), {"x": rows})[0])

    table, seat = meeting(range(2))
    ended = table.hold({str(n): functools.partial(one, seat, n) for n in range(2)})
    assert (ended["0"] == 0).all() and (ended["1"] == 2 * BASE.sum(0)).all()
    assert jax.tree.all(jax.tree.map(lambda x: x.shape == (4,), ended))
