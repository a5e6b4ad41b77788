"""Classification: each example has one of C classes.

Letters in shapes: R rows, E places for examples in a row, C classes, n examples.
"""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.errors import InputError, nearest
from research.models.heads import Classifier, Style
from research.tasks import metrics, names
from research.tasks.base import EXAMPLE, Batch, Column, Hub, Task

STAND_IN_CLASSES = tuple(f"class_{k}" for k in range(6))  # of demo data for a task that does not fix its classes


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """A task whose examples have one of several classes.

    `labels` fixes the order of the classes; if it is empty, the classes are the labels of the training split in natural order. Precision,
    recall and f1 are of the class `positive`. If that is empty, they are of the second of two classes, or macro means above two.
    `fitted` holds the classes once they are known.
    """

    metric: str = "accuracy"
    labels: tuple[str, ...] = ()
    positive: str = ""
    fitted: tuple[str, ...] = ()

    hub = Hub("classifier", "single_label_classification")
    metric_names = metrics.NAMES

    def configured(self, metric: str, positive: str) -> Self:
        return dataclasses.replace(super().configured(metric, ""), positive=positive or self.positive)

    def normalized(self, label: str) -> str:
        return label.strip()

    def fit(self, labels: Sequence[str], source: str) -> Self:
        fitted = dataclasses.replace(self, fitted=self.labels or names.in_order(labels))
        if self.positive and self.positive not in fitted.classes:
            raise InputError(f"positive={self.positive!r} is not a class of {source}; {nearest(self.positive, fitted.classes)}")
        return fitted

    @property
    def learnt(self) -> dict[str, Any]:
        return {"labels": list(self.classes)}

    def with_learnt(self, learnt: Mapping[str, Any]) -> Self:
        return dataclasses.replace(self, fitted=tuple(learnt["labels"]))

    def of_head(self, names: Sequence[str]) -> Self:
        return dataclasses.replace(self, fitted=tuple(names))

    def check(self, label: str, place: str) -> None:
        if label not in self.classes:
            raise InputError(f"{place}: label {label!r} is not a class; {nearest(label, self.classes)}")

    def check_train(self, labels: Sequence[str], source: str) -> None:
        if len(set(labels)) == 1:
            raise InputError(f"{source}: {len(labels)} training examples, all of one class ({labels[0]!r}); give two or more classes")

    def strata(self, labels: Sequence[str]) -> list[str]:
        return list(labels)

    def describe(self, labels: Mapping[str, Sequence[str]]) -> list[str]:
        return names.describe(self.classes, labels)

    def demo_label(self, row: int, sentiment: int, texts: tuple[str, ...]) -> str:
        """Return a class by the sentiment for tasks of one text and two classes (negative first). Other tasks get stand-in data for smoke
        runs, from which nothing can be learnt: the row number modulo the number of classes."""
        classes = self.labels or STAND_IN_CLASSES
        return classes[sentiment if len(self.texts) == 1 and len(self.labels) == 2 else row % len(classes)]

    @property
    def classes(self) -> tuple[str, ...]:
        return self.fitted or self.labels

    @property
    def numbered(self) -> tuple[str, ...]:
        return self.labels

    def columns(self, labels: Sequence[str], size: int) -> dict[str, Column]:
        """Return `labels`, int32 [n]: the index of the class of each example, 0 for examples without labels."""
        indices = {label: i for i, label in enumerate(self.classes)}
        values = [indices[label] for label in labels] if labels else np.zeros(size)
        return {"labels": Column(EXAMPLE, np.asarray(values, np.int32))}

    def head(self, config: Any, reader: nn.Module | None = None, style: Style = Style()) -> Classifier:  # noqa: B008
        return Classifier(classes=len(self.classes), pooling=config.pooling, dropout=config.dropout, reader=reader, style=style)

    def loss(self, logits: jax.Array, batch: Batch, label_smoothing: Any = 0.0) -> tuple[jax.Array, jax.Array]:
        """Return the cross-entropy of logits [R, E, C], summed over the examples, and the number of examples.

        With label smoothing s the target is 1 - s + s / C for the true class and s / C for the others (Szegedy et al. 2016).
        """
        target = optax.smooth_labels(jax.nn.one_hot(batch["labels"], logits.shape[-1]), label_smoothing)
        return (optax.softmax_cross_entropy(logits, target) * batch["weights"]).sum(), batch["weights"].sum()

    def divergence(self, logits: jax.Array, others: jax.Array, batch: Batch) -> jax.Array:
        """Return KL(p || q) + KL(q || p) = sum (p - q) (log p - log q), summed over the examples, in nats.

        p and q are the softmax of `logits` and of `others`, [R, E, C] each.
        """
        p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
        return (((jnp.exp(p) - jnp.exp(q)) * (p - q)).sum(-1) * batch["weights"]).sum()

    def stats(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return `loss`, `weight` and the confusion matrix `confusion` [C, C] (rows are true classes)."""
        loss, weight = self.loss(logits, batch)
        true = jax.nn.one_hot(batch["labels"], logits.shape[-1]) * batch["weights"][..., None]
        predicted = jax.nn.one_hot(logits.argmax(-1), logits.shape[-1])
        return {"loss": loss, "weight": weight, "confusion": jnp.einsum("ret,rep->tp", true, predicted)}

    def metrics(
        self,
        stats: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        labels: Sequence[str] = (),
    ) -> dict[str, float]:
        """Return the mean loss and `metrics.classification_scores`."""
        positive = None if self.positive_class is None else self.classes.index(self.positive_class)
        return {"loss": float(stats["loss"] / stats["weight"]), **metrics.classification_scores(stats["confusion"], positive)}

    @property
    def positive_class(self) -> str | None:
        """Return the class that precision, recall and f1 are of; None if they are means over the classes."""
        return metrics.positive_class(self.classes, self.positive)

    @property
    def titles(self) -> dict[str, str]:
        shown = dict.fromkeys((*metrics.shown(self.positive_class), self.metric))
        return {name: metrics.title(name, self.positive_class) for name in shown}

    @property
    def selection(self) -> dict[str, Any]:
        return super().selection | {"positive": self.positive_class}

    def decode(self, outputs: Mapping[str, np.ndarray], texts: Sequence[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        """Yield the predicted label and the probability of each class by name, from logits [n, C]."""
        logits = outputs["logits"]
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        for row in shifted / shifted.sum(-1, keepdims=True):
            probabilities = {label: round(float(p), 6) for label, p in zip(self.classes, row, strict=True)}
            yield {"prediction": self.classes[int(row.argmax())], "probabilities": probabilities}

    def report(
        self,
        stats: Mapping[str, Mapping[str, np.ndarray]],
        outputs: Mapping[str, Mapping[str, np.ndarray]],
        labels: Mapping[str, Sequence[str]],
    ) -> dict[str, Any]:
        """Return the names of the classes, precision, recall, f1 and support of each class, and the confusion matrices."""
        by_class = defaultdict(dict)
        for split, sums in stats.items():
            scores = metrics.of_classes(sums["confusion"])
            by_class[split] = {label: {k: v[i].item() for k, v in scores.items()} for i, label in enumerate(self.classes)}
        confusion = {split: sums["confusion"].astype(int).tolist() for split, sums in stats.items()}
        return {"labels": list(self.classes), "classes": dict(by_class), "confusion": confusion}

    def hints(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return a hint about classes that are never predicted, else about accuracy no better than that of always predicting one class."""
        true, predicted = Counter(row["label"] for row in rows), Counter(row["prediction"] for row in rows)
        (common, most), *_ = true.most_common(1)
        if len(predicted) == 1 < len(true):
            return [f"every dev example was predicted as {next(iter(predicted))!r}: the model has not learnt to tell the classes apart"]
        missing = [f"{label!r} ({true[label]} of {len(rows)} dev examples)" for label in sorted(true.keys() - predicted.keys())]
        if missing:
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            return [f"never predicted on dev: {', '.join(missing[:5])}{more}; train longer, or give these classes more examples"]
        right = sum(row["label"] == row["prediction"] for row in rows)
        if len(true) > 1 and right <= most:
            return [f"dev accuracy {right / len(rows):.4f} is not above that of always answering {common!r}, {most / len(rows):.4f}"]
        return []
