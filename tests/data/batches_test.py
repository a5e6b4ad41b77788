"""Test the layout of batches: every example is rebuilt from the batches by hand."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research import weights
from research.data import batches as b
from research.data import loading, packing
from research.data.encode import Tokens, encode
from research.errors import InputError
from research.tasks import catalog
from research.tasks.base import Column
from tests import runs
from tests.runs import DATA

LENGTHS = np.clip(np.exp(np.random.default_rng(0).normal(3.0, 0.6, 640)).astype(int) + 2, 4, 64)  # of sentences, cut at 64


def tokens_of(lengths):
    """Return tokens in which example i is i * 1000 + 1, i * 1000 + 2, ..., with types 1 in an example's second half."""
    ids = np.concatenate([i * 1000 + 1 + np.arange(n) for i, n in enumerate(lengths)]).astype(np.int32)
    types = np.concatenate([np.arange(n) >= n / 2 for n in lengths]).astype(np.int8)
    return Tokens(ids, types, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64), np.asarray(lengths))


def make(lengths=LENGTHS, size=32, **options):
    labels = (np.arange(len(lengths)) * 7 % 5).astype(np.int32)
    return b.Batches(tokens_of(lengths), {"labels": Column("example", labels)}, size, **{"seed": 0} | options)


def rebuild(batch, lengths):
    """Return example -> (row, place). Check all arrays of the examples, and that the rest of the batch is zero."""
    placed, covered = {}, np.zeros_like(batch["tokens"], bool)
    for row, place in zip(*np.nonzero(batch["weights"]), strict=True):
        example, at = int(batch["examples"][row, place]), int(batch["example_starts"][row, place])
        here = (row, slice(at, at + lengths[example]))
        assert example not in placed and not covered[here].any()
        covered[here] = True
        assert (batch["segments"][here] == place + 1).all()
        np.testing.assert_array_equal(batch["tokens"][here], example * 1000 + 1 + np.arange(lengths[example]))
        np.testing.assert_array_equal(batch["positions"][here], np.arange(lengths[example]))
        np.testing.assert_array_equal(batch["types"][here], np.arange(lengths[example]) >= lengths[example] / 2)
        assert batch["labels"][row, place] == example * 7 % 5
        placed[example] = (int(row), int(place))
    for name in ("tokens", "positions", "segments", "types"):
        assert not batch[name][~covered].any(), name
    for name in ("example_starts", "examples", "labels"):
        assert not batch[name][batch["weights"] == 0].any(), name
    assert set(np.unique(batch["weights"])) <= {0.0, 1.0}
    return placed


def equal(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("layout", b.LAYOUTS)
@pytest.mark.parametrize(("count", "size", "steps"), [(96, 32, 3), (100, 32, 4), (33, 32, 2), (5, 32, 1), (1, 1, 1), (7, 1, 7)])
@pytest.mark.parametrize("multiple", [1, 4])
def test_every_example_is_there_once_an_epoch_and_right_at_every_place(layout, count, size, steps, multiple):
    lengths = LENGTHS[:count]
    made = make(lengths, size, layout=layout, multiple=multiple)
    batches = [rebuild(batch, lengths) for batch in made.epoch(0)]
    assert len(batches) == made.steps == steps
    assert sorted(itertools.chain(*batches)) == list(range(count))
    sizes = sorted(map(len, batches), reverse=True)
    assert sizes[: count // size] == [size] * (count // size) and sum(sizes) == count
    assert all(batch["tokens"].shape[0] % multiple == 0 for batch in made.epoch(0))


def test_rebuilding_notices_a_wrong_array():
    (batch,) = make(LENGTHS[:8], 8).epoch(0)
    for name in ("tokens", "positions", "segments", "types", "labels", "example_starts"):
        broken = {key: array.copy() for key, array in batch.items()}
        broken[name][0, 0] += 1
        with pytest.raises(AssertionError):
            rebuild(broken, LENGTHS[:8])


def test_a_batch_has_the_one_format_whatever_the_layout():
    for layout in b.LAYOUTS:
        batch = next(make(layout=layout).epoch(0))
        rows, places = batch["weights"].shape
        assert all(batch[name].dtype == np.int32 and batch[name].shape[0] == rows for name in batch if name != "weights")
        assert {batch[name].shape for name in ("example_starts", "labels", "examples")} == {(rows, places)}
        assert batch["weights"].dtype == np.float32 and (places == 1) == (layout != "packed")


@pytest.mark.parametrize("epoch", [0, 3])
def test_packed_and_padded_batches_hold_the_same_examples_and_bucketed_ones_do_not(epoch):
    packed, padded, bucketed = (
        [set(rebuild(x, LENGTHS)) for x in make(layout=name).epoch(epoch)] for name in ("packed", "padded", "bucketed")
    )
    assert packed == padded != bucketed


@pytest.mark.parametrize("layout", b.LAYOUTS)
def test_batches_are_a_function_of_seed_and_epoch(layout):
    epoch = lambda seed, number: list(make(seed=seed, layout=layout).epoch(number))  # noqa: E731
    same = lambda one, other: all(map(equal, one, other))  # noqa: E731
    assert same(epoch(1, 2), epoch(1, 2))
    assert not same(epoch(1, 2), epoch(1, 3))
    assert not same(epoch(1, 2), epoch(2, 2))
    assert not same(epoch(1, 2), epoch(2, 1))


@pytest.mark.parametrize("layout", b.LAYOUTS)
@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
def test_a_stream_from_the_middle_is_the_tail_of_the_whole(layout, start):
    lengths = LENGTHS[:100]  # 4 batches an epoch
    batches = list(itertools.islice(make(lengths, layout=layout).stream(), 12))
    tail = list(itertools.islice(make(lengths, layout=layout).stream(start), 12 - start))
    assert all(map(equal, tail, batches[start:]))
    assert not equal(tail[0], batches[start + 1]), "neighbours differ, so this comparison sees a shift by one"


def test_dealing_evens_the_tokens_of_batches_where_chance_alone_does_not():
    token_counts = [LENGTHS[batch].sum() for batch in packing.deal_evenly(LENGTHS, 32, np.random.default_rng(0))]
    order = np.random.default_rng(0).permutation(640).reshape(20, 32)
    by_chance = LENGTHS[order].sum(1)
    assert np.ptp(token_counts) <= 0.02 * np.mean(token_counts) < np.ptp(by_chance) / 5


@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 20), st.integers(0, 5))
def test_dealing_gives_each_example_once_and_evens_as_well_as_one_example_allows(lengths, size, seed):
    lengths = np.array(lengths)
    for deal in (packing.deal_evenly, packing.deal_by_length):
        dealt = deal(lengths, size, np.random.default_rng(seed))
        assert sorted(np.concatenate(dealt).tolist()) == list(range(len(lengths)))
        assert sorted(map(len, dealt), reverse=True) == [size] * (len(lengths) // size) + [len(lengths) % size] * (len(lengths) % size > 0)
    token_counts = [lengths[batch].sum() for batch in packing.deal_evenly(lengths, size, np.random.default_rng(seed)) if len(batch) == size]
    assert not token_counts or max(token_counts) - min(token_counts) <= lengths.max()


def test_bucketed_batches_hold_similar_lengths_and_even_ones_do_not():
    spread = {name: np.mean([np.ptp(LENGTHS[batch]) for batch in make(layout=name).compose(0)]) for name in ("bucketed", "packed")}
    assert spread["bucketed"] < spread["packed"] / 4


def test_packed_batches_have_little_padding_and_padded_ones_much():
    def padding(layout):
        segments = [batch["segments"] for epoch in range(3) for batch in made[layout].epoch(epoch)]
        return 1 - sum((s > 0).sum() for s in segments) / sum(s.size for s in segments)

    made = {layout: make(layout=layout) for layout in b.LAYOUTS}
    assert padding("packed") <= 0.05
    assert padding("padded") > 0.5
    assert padding("packed") < padding("bucketed") < padding("padded")


@pytest.mark.parametrize(("layout", "most"), [("packed", 2), ("bucketed", 4), ("padded", 1)])
def test_three_epochs_have_a_handful_of_shapes(layout, most):
    made = make(layout=layout)
    shapes = {batch["tokens"].shape for epoch in range(3) for batch in made.epoch(epoch)}
    assert 1 <= len(shapes) <= most


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("multiple", [1, 4])
def test_no_other_shape_that_holds_all_batches_costs_less(seed, multiple):
    rng = np.random.default_rng(seed)
    lengths = np.clip(np.exp(rng.normal(3.6, 0.5, 400)).astype(int) + 2, 4, 128)
    batches = [lengths[batch] for batch in packing.deal_evenly(lengths, 32, rng)]
    chosen = packing.packed_shape(batches, 32, multiple)
    assert all(packing.assign(batch, chosen) is not None for batch in batches)
    costs = {}
    for rows in range(multiple, 33, multiple):
        shape = packing.Shape(rows, 8 * -(-int(lengths.max()) // 8), min(32, 2 * -(-32 // rows)))
        while any(packing.assign(batch, shape) is None for batch in batches):
            shape = dataclasses.replace(shape, length=shape.length + 8)
        costs[rows] = packing._cost(rows, shape.length)
    assert packing._cost(chosen.rows, chosen.length) == min(costs.values()) == costs[chosen.rows]
    assert len(set(costs.values())) > 4


@pytest.mark.data
def test_two_thousand_real_examples_leave_little_padding():
    data = loading.load(catalog.get("ag_news"), source="files", path=str(DATA / "ag_news"), train_examples=2000)
    tokens = encode(weights.begin(runs.config(arg="model=minilm,data=demo")).tokenizer(), data.splits["train"], 128)
    made = b.Batches(tokens, {}, 32, seed=0)
    segments = [batch["segments"] for seed in range(2) for batch in made.reseeded(seed).epoch(0)]
    assert 1 - sum((s > 0).sum() for s in segments) / sum(s.size for s in segments) <= 0.05
    assert len({s.shape for s in segments}) == 1


def test_assign_fills_rows_within_length_and_places():
    lengths = np.array([5, 5, 4, 3, 3])
    rows = packing.assign(lengths, packing.Shape(rows=2, length=10, places=3))  # longest-first alone gives 11 and 9
    assert sorted(sum(rows, [])) == [0, 1, 2, 3, 4]
    assert sorted(int(lengths[row].sum()) for row in rows) == [10, 10]


@pytest.mark.parametrize(
    ("lengths", "shape"),
    [([5, 5, 4, 3, 3], (2, 9, 3)), ([5, 5, 4, 3, 3], (2, 20, 2)), ([11, 1], (2, 10, 2)), ([3, 3, 3], (2, 5, 3))],
    ids=["too many tokens", "too few places", "an example longer than the row", "rows that only fit together"],
)
def test_assign_gives_none_where_it_cannot_fit(lengths, shape):
    assert packing.assign(np.array(lengths), packing.Shape(*shape)) is None
    rows, length, places = shape
    assert packing.assign(np.array(lengths), packing.Shape(rows * 3, length + 1, places)) is not None


@given(st.lists(st.integers(1, 20), min_size=1, max_size=24), st.integers(1, 8), st.integers(8, 60), st.integers(1, 6))
def test_assign_never_overfills(lengths, rows, length, places):
    lengths, assigned = np.array(lengths), packing.assign(np.array(lengths), packing.Shape(rows, length, places))
    if assigned is None:
        assert rows * places < len(lengths) or lengths.sum() > rows * length - rows * lengths.max() or lengths.max() > length
    else:
        assert len(assigned) == rows and sorted(sum(assigned, [])) == list(range(len(lengths)))
        assert all(lengths[row].sum() <= length and len(row) <= places for row in assigned)


def test_a_batch_that_does_not_fit_gets_a_larger_shape_that_does_not_depend_on_what_came_before():
    made, fresh = make(multiple=2), make(multiple=2)
    shape = made.shapes[0]
    longest = np.argsort(-LENGTHS)[:32]
    assert packing.assign(LENGTHS[longest], shape) is None
    list(made.epoch(0))
    large = made.lay_out(longest)
    assert set(rebuild(large, LENGTHS)) == set(longest.tolist())
    assert large["tokens"].shape[0] % 2 == 0 and large["tokens"].shape[1] == shape.length
    assert equal(large, fresh.lay_out(longest))
    assert next(made.epoch(1))["tokens"].shape == (shape.rows, shape.length), "others keep the small one"


def test_an_unknown_layout_is_an_error_that_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'packed'"):
        make(layout="paked")
