"""Tags of words and the spans that they mark, in the schemes IOB1, IOB2, BIOES and BILOU.

A span is (type, first word, end), where `end` is the index after the last word. C is the number of tags.
"""

import re
from collections.abc import Sequence

import numpy as np

OUTSIDE = "O"
Span = tuple[str, int, int]
PREFIXED = re.compile(r"([BIESLU])-(.+)", re.DOTALL)
SAME = {"L": "E", "U": "S"}  # BILOU's names of the prefixes of BIOES


def is_prefixed(tag: str) -> bool:
    """Return whether a tag has the form PREFIX-TYPE with a prefix of one of the schemes."""
    return PREFIXED.fullmatch(tag) is not None


def spans(tags: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence as the script `conlleval` and seqeval's default mode read them, whatever the scheme.

    A span begins at B and S, after E and S, and where the type changes or O precedes; it ends after E and S, and before all of these."""
    result, begin, previous = [], 0, ("O", "")
    for place, tag in enumerate((*tags, OUTSIDE)):
        prefix, kind = _parts(tag)
        is_new = prefix in "BS" or previous[0] in "ESO" or kind != previous[1]
        if previous[0] != "O" and (prefix == "O" or is_new):
            result.append((previous[1], begin, place))
        if prefix != "O" and is_new:
            begin = place
        previous = prefix, kind
    return result


def strict_spans(tags: Sequence[str]) -> list[Span]:
    """Return the spans of a sentence in IOB2 of which the first tag is B and the others are I of the same type. Other I tags mark none."""
    return [span for span in spans(tags) if _parts(tags[span[1]])[0] == "B"]


def iob2(tags: Sequence[str]) -> tuple[str, ...]:
    """Return the tags of a sentence in IOB2, with the same `spans`. Tags without a prefix are not changed."""
    result = [tag if not is_prefixed(tag) else OUTSIDE for tag in tags]
    for kind, begin, end in spans(tags):
        result[begin:end] = [f"B-{kind}"] + [f"I-{kind}"] * (end - begin - 1)
    return tuple(result)


def _parts(tag: str) -> tuple[str, str]:
    """Return prefix and type of a tag. A tag without a prefix counts as O."""
    match = PREFIXED.fullmatch(tag)
    return (SAME.get(match[1], match[1]), match[2]) if match else ("O", "")


def transitions(tags: Sequence[str]) -> np.ndarray:
    """Return which tag may follow which in IOB2, bool [1 + C, C]. Row 0 is the beginning of a sentence, row 1 + i follows tag i."""
    before = ["", *tags]
    return np.array([[not tag.startswith("I-") or last[:1] in ("B", "I") and last[1:] == tag[1:] for tag in tags] for last in before])


def best_paths(scores: np.ndarray, lengths: Sequence[int], allowed: np.ndarray, outside: int) -> np.ndarray:
    """Return the tags int64 [W] of n sentences with the highest sum of scores [W, C] among the sequences that are `allowed` (Viterbi).

    The words of all sentences are concatenated; `lengths` are the numbers of words of each, and `allowed` is as `transitions` returns it.
    The tag `outside`, which may follow every tag, stands in places after the end of a sentence."""
    inside = np.arange(max(lengths))[None] < np.asarray(lengths)[:, None]
    padded = np.full((*inside.shape, scores.shape[-1]), -np.inf)
    padded[:, :, outside] = 0.0
    padded[inside] = scores
    cost = np.where(allowed, 0.0, -np.inf)
    best, back = padded[:, 0] + cost[0], []
    for place in range(1, padded.shape[1]):
        paths = best[:, :, None] + cost[None, 1:]
        back.append(paths.argmax(1))
        best = paths.max(1) + padded[:, place]
    tags = [best.argmax(-1)]
    for previous in reversed(back):
        tags.append(previous[np.arange(len(lengths)), tags[-1]])
    return np.stack(tags[::-1], axis=1)[inside]
