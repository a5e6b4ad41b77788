"""Tagging: each word of a text has a tag, as in named entity recognition, chunking and part-of-speech tagging.

Letters in shapes: R rows, L tokens of a row, C tags, W words of all examples, n examples.
"""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.errors import InputError, nearest
from research.models.heads import Style, Tagger
from research.tasks import iob, metrics, names
from research.tasks.base import WORD, Batch, Column, Hub, Task, word_spans

Tags = tuple[str, ...]
CHUNK = 1024  # sentences decoded at a time, so that padding takes little memory


@dataclasses.dataclass(frozen=True)
class Tagging(Task):
    """A task whose examples have a tag for every word. The text is the words joined by blanks; the label is the tuple of their tags.

    Tags PREFIX-TYPE are read in IOB1, IOB2, BIOES or BILOU and used in IOB2. Other tags (parts of speech) are used as they are, and each
    word then counts as an entity whose type is its tag. The head predicts the tag of a word at the first token of the word. With
    `constrained`, predictions are the best valid sequences of IOB2, else the best tag of each word. `fitted` holds the tags once known.
    """

    texts: tuple[str, ...] = ("tokens",)
    label: str = "tags"
    metric: str = "f1"
    constrained: bool = True
    fitted: Tags = ()

    hub = Hub("tagger", "")
    metric_names = ("f1", "precision", "recall", "macro_f1", "strict_f1", "accuracy")
    outputs_per: ClassVar[str] = WORD
    pools: ClassVar[bool] = False

    def normalized(self, label: Sequence[str]) -> Tags:
        """Return the tags in IOB2, without blanks around them."""
        return iob.iob2([tag.strip() for tag in label])

    def describe_changes(self, changes: Mapping[tuple[Tags, Tags], int]) -> list[str]:
        """Return a line with the number of tags that `normalized` changed: by conversion from another scheme, or by repair."""
        counts = Counter()
        for (before, after), examples in changes.items():
            for pair in zip(before, after, strict=True):
                counts[pair] += examples * (pair[0] != pair[1])
        shown = [f"{old} as {new} {count:,}" for (old, new), count in counts.most_common() if count]
        return [f"tags rewritten in IOB2: {counts.total():,} ({names.listed(shown, 12)})"] if shown else []

    def fit(self, labels: Sequence[Tags], source: str) -> Self:
        tags = set(itertools.chain.from_iterable(labels))
        types = names.in_order(tag[2:] for tag in tags if iob.is_prefixed(tag))
        if not types:
            return dataclasses.replace(self, fitted=names.in_order(tags))
        if other := sorted(tag for tag in tags - {iob.OUTSIDE} if not iob.is_prefixed(tag)):
            raise InputError(f"{source}: tag {other[0]!r} is neither O nor of the form B-TYPE or I-TYPE, as other tags of train are")
        return dataclasses.replace(self, fitted=(iob.OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in "BI")))

    @property
    def learnt(self) -> dict[str, Any]:
        return {"labels": list(self.fitted)}

    def with_learnt(self, learnt: Mapping[str, Any]) -> Self:
        return dataclasses.replace(self, fitted=tuple(learnt["labels"]))

    def of_head(self, names: Sequence[str]) -> Self:
        return dataclasses.replace(self, fitted=tuple(names))

    def check(self, label: Tags, place: str) -> None:
        for tag in label:
            if tag not in self.classes:
                raise InputError(f"{place}: tag {tag!r} is not in train; {nearest(tag, self.classes)}")

    def check_train(self, labels: Sequence[Tags], source: str) -> None:
        if len(detected := set(itertools.chain.from_iterable(labels))) == 1:
            raise InputError(f"{source}: all words of train have the tag {detected.pop()!r}; give two or more tags")

    def strata(self, labels: Sequence[Tags]) -> list[str]:
        """Return the types of entities in each sentence as its stratum."""
        return [" ".join(sorted({tag[2:] for tag in label if iob.is_prefixed(tag)})) for label in labels]

    def describe(self, labels: Mapping[str, Sequence[Tags]]) -> list[str]:
        counts = {split: Counter(kind for tags in examples for kind, _, _ in self._spans(tags)) for split, examples in labels.items()}
        kinds = names.in_order(kind for count in counts.values() for kind in count)
        shown = [f"{kind} {'/'.join(f'{count[kind]:,}' for count in counts.values())}" for kind in kinds]
        what = "types of entities" if self.has_entities else "tags"
        words = "/".join(f"{sum(map(len, examples)):,}" for examples in labels.values())
        return [f"{words} words; {len(kinds)} {what} (counts in {'/'.join(labels)}): {names.listed(shown)}"]

    def demo_label(self, row: int, sentiment: int, texts: tuple[str, ...]) -> Tags:
        """Return stand-in tags: words of more than four letters that follow each other are an entity."""
        (text,) = texts
        return iob.iob2(["I-LONG" if end - begin > 4 else iob.OUTSIDE for begin, end in word_spans(text)])

    @property
    def classes(self) -> Tags:
        return self.fitted

    @property
    def has_entities(self) -> bool:
        """Return whether the tags mark spans of words, rather than being a class of each word."""
        return any(map(iob.is_prefixed, self.classes))

    def columns(self, labels: Sequence[Tags], size: int) -> dict[str, Column]:
        """Return `tags`, int32 [W], or [0] without labels: 1 + the index of the tag of each word. Batches hold 0 at other tokens."""
        indices = {tag: i for i, tag in enumerate(self.classes, 1)}
        return {"tags": Column(WORD, np.asarray([indices[tag] for tags in labels for tag in tags], np.int32))}

    def head(self, config: Any, reader: nn.Module | None = None, style: Style = Style()) -> Tagger:  # noqa: B008
        return Tagger(classes=len(self.classes), dropout=config.dropout, reader=reader, style=style)

    def loss(self, logits: jax.Array, batch: Batch, label_smoothing: Any = 0.0) -> tuple[jax.Array, jax.Array]:
        """Return the cross-entropy of logits [R, L, C], summed over the words (at their first tokens), and the number of words."""
        target, weights = _targets(batch, logits.shape[-1])
        target = optax.smooth_labels(target, label_smoothing)
        return (optax.softmax_cross_entropy(logits, target) * weights).sum(), weights.sum()

    def divergence(self, logits: jax.Array, others: jax.Array, batch: Batch) -> jax.Array:
        """Return KL(p || q) + KL(q || p), summed over the words, in nats. p and q are the softmax of `logits` and `others` [R, L, C]."""
        p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
        return (((jnp.exp(p) - jnp.exp(q)) * (p - q)).sum(-1) * _targets(batch, 1)[1]).sum()

    def stats(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return `loss`, `weight` and the confusion matrix `confusion` [C, C] of the tags of words (rows are true tags)."""
        loss, weight = self.loss(logits, batch)
        target, weights = _targets(batch, logits.shape[-1])
        predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
        return {"loss": loss, "weight": weight, "confusion": jnp.einsum("rlt,rlp->tp", target * weights[..., None], predicted)}

    def outputs(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return `logits` [R, L, C], and `seen` bool [R, L], which stays False for words without a token."""
        return {"logits": logits, "seen": batch["segments"] > 0}

    def metrics(
        self,
        stats: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        labels: Sequence[Tags] = (),
    ) -> dict[str, float]:
        """Return the mean loss, accuracy of the tags and, from `outputs` [W, ...], precision, recall and F1 of entities.

        f1, precision and recall are those of `conlleval` (and of seqeval's default mode), `macro_f1` is the mean of f1 over the types, and
        `strict_f1` counts valid IOB2 only. All are of the tags as predictions have them; without `outputs`, accuracy is of the best tag
        of each word that has a token."""
        loss = {"loss": float(stats["loss"] / stats["weight"])}
        if outputs is None:
            return loss | {"accuracy": float(np.trace(stats["confusion"]) / stats["confusion"].sum())}
        predicted = list(self._tags(outputs, [len(tags) for tags in labels]))
        right = sum(a == b for pair in zip(labels, predicted, strict=True) for a, b in zip(*pair, strict=True))
        _, scores = self._scores(labels, predicted)
        _, strict = self._scores(labels, predicted, iob.strict_spans)
        return loss | scores | {"strict_f1": strict["f1"], "accuracy": right / sum(map(len, labels))}

    def _scores(self, labels: Sequence[Tags], predicted: Sequence[Tags], spans: Any = iob.spans) -> tuple[dict, dict[str, float]]:
        """Return the scores of each type, as `metrics.of_counts` does, and those of all types."""
        spans = spans if self.has_entities else self._spans
        true, detected = ({(i, *span) for i, tags in enumerate(x) for span in spans(tags)} for x in (labels, predicted))
        return metrics.of_counts(*(Counter(kind for _, kind, _, _ in group) for group in (true & detected, detected, true)))

    def _spans(self, tags: Tags) -> list[iob.Span]:
        return iob.spans(tags) if self.has_entities else [(tag, i, i + 1) for i, tag in enumerate(tags)]

    def _tags(self, outputs: Mapping[str, np.ndarray], sizes: Sequence[int]) -> Iterator[Tags]:
        """Yield the predicted tags of each sentence from outputs [W, ...]. `sizes` are the numbers of words of the sentences."""
        edges, logits, seen = np.cumsum([0, *sizes]), outputs["logits"], outputs["seen"]
        for start in range(0, len(sizes), CHUNK):
            part = sizes[start : start + CHUNK]
            ends = edges[start : start + len(part) + 1]
            places = slice(ends[0], ends[-1])
            best = logits[places].argmax(-1)
            if self.constrained and self.has_entities:
                outside = self.classes.index(iob.OUTSIDE)
                unseen = np.where(np.arange(len(self.classes)) == outside, 0.0, -np.inf)
                scores = np.where(seen[places, None], logits[places], unseen[None])
                best = iob.best_paths(scores, part, iob.transitions(self.classes), outside)
            tags = [self.classes[i] if there else iob.OUTSIDE for i, there in zip(best.tolist(), seen[places].tolist(), strict=True)]
            yield from (tuple(tags[a:b]) for a, b in itertools.pairwise((ends - ends[0]).tolist()))

    @property
    def titles(self) -> dict[str, str]:
        shown = dict.fromkeys(("f1", "precision", "recall", "accuracy", self.metric))
        return {name: f"{name} of entities" if name == "f1" and self.has_entities else name for name in shown}

    def decode(self, outputs: Mapping[str, np.ndarray], texts: Sequence[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        """Yield the tags of each text's words; for tags with types, also the entities: type, text, first character, end (exclusive)."""
        words = [word_spans(text) for (text,) in texts]
        for (text,), places, tags in zip(texts, words, self._tags(outputs, list(map(len, words))), strict=True):
            entities = [(kind, places[begin][0], places[end - 1][1]) for kind, begin, end in iob.spans(tags)]
            shown = [{"type": kind, "start": start, "end": end, "text": text[start:end]} for kind, start, end in entities]
            yield {"prediction": list(tags)} | ({"entities": shown} if self.has_entities else {})

    def report(
        self,
        stats: Mapping[str, Mapping[str, np.ndarray]],
        outputs: Mapping[str, Mapping[str, np.ndarray]],
        labels: Mapping[str, Sequence[Tags]],
    ) -> dict[str, Any]:
        """Return the tags, precision, recall, f1 and support of each type, and the confusion matrices of the tags."""
        by_type = {}
        for split, true in labels.items():
            by_type[split], _ = self._scores(true, list(self._tags(outputs[split], list(map(len, true)))))
        confusion = {split: sums["confusion"].astype(int).tolist() for split, sums in stats.items()}
        return {"labels": list(self.classes), "classes": by_type, "confusion": confusion}

    def hints(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return a hint if no entity was predicted, else about types that are never predicted."""
        true, predicted = (Counter(kind for row in rows for kind, _, _ in iob.spans(row[key])) for key in ("label", "prediction"))
        if true and not predicted:
            return [f"no entity was predicted on dev, which has {true.total():,}: train longer, or with a higher learning rate"]
        missing = [f"{kind!r} ({true[kind]:,} on dev)" for kind in names.in_order(true.keys() - predicted.keys())]
        return [f"never predicted on dev: {names.listed(missing, 5)}; train longer, or give these more examples"] if missing else []


def _targets(batch: Batch, classes: int) -> tuple[jax.Array, jax.Array]:
    """Return the targets, one-hot [R, L, C], and the weights [R, L]: 1 at the first token of a word with a tag, else 0."""
    return jax.nn.one_hot(batch["tags"] - 1, classes), (batch["tags"] > 0).astype(jnp.float32)
