"""Schemes of tags: the same spans in any scheme are the same tags in IOB2; paths are the best of all valid ones."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.tasks import iob

TYPES = ("A", "B-2", "C")  # a type may have a hyphen and look like a prefix


@st.composite
def spans(draw):
    """Draw words in a row of pieces: a piece is an entity with its type, or words outside (None)."""
    pieces = draw(st.lists(st.tuples(st.sampled_from((None, *TYPES)), st.integers(1, 4)), max_size=6))
    detected, place = [], 0
    for kind, size in pieces:
        if kind:
            detected.append((kind, place, place + size))
        place += size
    return detected, place


def written(detected, length, scheme):
    """Return the tags of the spans in a scheme."""
    tags = ["O"] * length
    for number, (kind, begin, end) in enumerate(detected):
        size = end - begin
        touches = number > 0 and detected[number - 1][0] == kind and detected[number - 1][2] == begin
        prefixes = {
            "iob2": "B" + "I" * (size - 1),
            "iob1": ("B" if touches else "I") + "I" * (size - 1),
            "bioes": "S" if size == 1 else "B" + "I" * (size - 2) + "E",
            "bilou": "U" if size == 1 else "B" + "I" * (size - 2) + "L",
        }[scheme]
        tags[begin:end] = [f"{prefix}-{kind}" for prefix in prefixes]
    return tags


@given(spans(), st.sampled_from(("iob1", "iob2", "bioes", "bilou")))
def test_every_scheme_is_read_as_the_spans_it_was_written_from_and_becomes_iob2(case, scheme):
    detected, length = case
    tags = written(detected, length, scheme)
    assert iob.spans(tags) == detected
    assert list(iob.iob2(tags)) == written(detected, length, "iob2")
    assert iob.strict_spans(iob.iob2(tags)) == detected


@given(st.lists(st.sampled_from(("O", *(f"{prefix}-{kind}" for prefix in "BIESLU" for kind in "XY"))), max_size=9))
def test_any_tags_become_valid_iob2_with_the_same_spans(tags):
    fixed = iob.iob2(tags)
    assert iob.spans(fixed) == iob.strict_spans(fixed) == iob.spans(tags) and iob.iob2(fixed) == fixed
    allowed = iob.transitions(sorted({*fixed, "O"}))
    places = [0, *(1 + sorted({*fixed, "O"}).index(tag) for tag in fixed)]
    assert all(allowed[a, b - 1] for a, b in itertools.pairwise(places))


def test_what_is_not_valid_has_fewer_strict_spans_and_is_not_allowed():
    assert iob.strict_spans(["I-A", "I-A", "O"]) == [] != iob.spans(["I-A", "I-A", "O"])
    assert iob.strict_spans(["B-A", "I-C", "I-A"]) == [("A", 0, 1)]
    assert iob.iob2(["I-A", "O", "B-A", "I-C"]) == ("B-A", "O", "B-A", "B-C")
    allowed = iob.transitions(["O", "B-A", "I-A", "B-C", "I-C"])
    assert allowed[:, 2].tolist() == [False, False, True, True, False, False]


@pytest.mark.parametrize("tags", [("NN", "VB-X", "-LRB-", "O"), ("B", "I"), ()])
def test_tags_without_a_prefix_stay_and_mark_nothing(tags):
    assert iob.iob2(tags) == tags and iob.spans(tags) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_best_path_is_the_best_of_all_valid_ones(seed):
    rng, tags, lengths = np.random.default_rng(seed), ("O", "B-A", "I-A", "B-C", "I-C"), (4, 1, 3)
    scores = rng.normal(size=(sum(lengths), len(tags)))
    detected = iob.best_paths(scores, lengths, iob.transitions(tags), 0)
    assert not np.array_equal(detected, scores.argmax(-1)), "the constraint has no effect here"
    for begin, size in zip((0, 4, 5), lengths, strict=True):
        part = scores[begin : begin + size]
        valid = [path for path in itertools.product(range(5), repeat=size) if _is_valid([tags[i] for i in path])]
        best = max(valid, key=lambda path: sum(part[place, i] for place, i in enumerate(path)))
        assert tuple(detected[begin : begin + size]) == best


def _is_valid(tags):
    return all(not tag.startswith("I-") or before[:1] in ("B", "I") and before[1:] == tag[1:] for before, tag in zip(["", *tags], tags))  # noqa: B905


@pytest.mark.oracle
@given(st.lists(st.lists(st.sampled_from(("O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in "XY"))), min_size=1), min_size=1))
def test_spans_are_those_of_seqeval(sentences):
    from seqeval.metrics.sequence_labeling import get_entities
    from seqeval.scheme import IOB2, Entities

    for tags in sentences:
        assert iob.spans(tags) == [(kind, begin, end + 1) for kind, begin, end in get_entities(tags)]
    valid = [[tag for tag in tags if tag[0] in "BIO"] for tags in sentences]
    for tags, reference in zip(valid, Entities(valid, IOB2).entities, strict=True):
        assert iob.strict_spans(tags) == [(entity.tag, entity.start, entity.end) for entity in reference]
