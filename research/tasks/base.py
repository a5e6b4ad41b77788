"""The contract of tasks: everything about a run that depends on what the model has to predict.

Other modules know tasks only through `Task`. Letters in shapes: R rows of a batch, E places for examples in a row, L tokens of a row,
W words of all examples, n examples.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import numpy as np

from research.errors import InputError, nearest
from research.models.heads import Style

Batch = Mapping[str, jax.Array]
Label = Any  # the target of an example as it stands in files and predictions: JSON-able and hashable
EXAMPLE, TOKEN, WORD = "example", "token", "word"


def word_spans(text: str) -> list[tuple[int, int]]:
    """Return the first character of each word of a text, and the one after the last. Words are separated by blanks or tabs."""
    return [match.span() for match in re.finditer(r"[^ \t]+", text)]


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A task's dataset in TensorFlow Datasets, with the names of its text and label columns there."""

    name: str
    texts: tuple[str, ...]
    label: str
    splits: Mapping[str, str]
    """Split of this project -> split of the dataset. A missing `dev` is cut from train. Splits with hidden labels are not named."""


class Hub(NamedTuple):
    """The names of a task in `transformers`: `kind`, a key of `research.weights.name_map.KINDS`, and `problem_type` in `config.json`."""

    kind: str
    problem_type: str


class Column(NamedTuple):
    """Values that batches hold beside the tokens: one row of `values` for each example, token or word, as `per` says.

    The values of a word stand at its first token; other tokens have 0. No values at all stand for zeros."""

    per: str
    values: np.ndarray


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of the catalog. Subclasses define the methods; there is one subclass for each kind of task.

    `texts` names the text columns of a file (two for pairs), and `label` names the target column. `metric` selects the best checkpoint on
    dev. `fit` returns the task with everything that it learns from the training labels. `learnt` returns the same as JSON, for checkpoints.
    """

    name: str
    texts: tuple[str, ...] = ("text",)
    label: str = "label"
    metric: str = ""
    tfds: Tfds | None = None

    hub: ClassVar[Hub]
    metric_names: ClassVar[tuple[str, ...]]
    """Metrics that can select the best checkpoint."""
    lower_is_better: ClassVar[frozenset[str]] = frozenset()
    in_percent: ClassVar[bool] = True
    """Whether tables show the metric times 100."""
    outputs_per: ClassVar[str] = EXAMPLE
    """Whether `outputs` returns arrays [R, E, ...] of examples or [R, L, ...] of tokens; of the latter, WORD keeps the first of each word.

    With WORD, a text is words with blanks between them, and a label has one entry for each word."""
    pools: ClassVar[bool] = True
    """Whether the head reads one vector for each example, by `config.pooling`, rather than the states of all tokens."""

    def configured(self, metric: str, positive: str) -> Self:
        """Return the task with the metric and the positive class of a config; "" stands for the task's own.

        Raises InputError for an unknown metric, or if the task has no positive class."""
        metric = metric or self.metric
        if metric not in self.metric_names:
            raise InputError(f"metric {metric!r} is not known; {nearest(metric, self.metric_names)}")
        if positive:
            raise InputError(f"positive={positive!r}: task {self.name!r} has no classes of which one is positive")
        return dataclasses.replace(self, metric=metric)

    # Labels of examples.

    def normalized(self, label: Label) -> Label:
        """Return a label as read from a source in the form that is used. Blanks around a name are removed, for example."""
        return label

    def describe_changes(self, changes: Mapping[tuple[Label, Label], int]) -> list[str]:
        """Return lines about the labels that `normalized` changed: (label in the source, label as used) -> number of examples."""
        counts = Counter()
        for (_, label), count in changes.items():
            counts[label] += count
        shown = ", ".join(f"{label!r} {count:,}" for label, count in counts.most_common(24))
        return [f"blanks around labels were removed: {counts.total():,} ({shown})"] if changes else []

    def fit(self, labels: Sequence[Label], source: str) -> Self:
        """Return the task with what it learns from the training labels: classes, for example. `source` is for error messages."""
        raise NotImplementedError

    @property
    def learnt(self) -> dict[str, Any]:
        """Return what `fit` has learnt: name -> JSON-able value, for checkpoints."""
        raise NotImplementedError

    def with_learnt(self, learnt: Mapping[str, Any]) -> Self:
        """Return the task with the values that `learnt` returned, instead of fitting it."""
        raise NotImplementedError

    def of_head(self, names: Sequence[str]) -> Self:
        """Return the task as it is for a trained head whose outputs have these names."""
        raise NotImplementedError

    def check(self, label: Label, place: str) -> None:
        """Raise InputError, naming the place, for a label that the fitted task does not have."""
        raise NotImplementedError

    def check_train(self, labels: Sequence[Label], source: str) -> None:
        """Raise InputError if nothing can be learnt from the training labels."""

    def strata(self, labels: Sequence[Label]) -> list[str]:
        """Return the stratum of each label. Splits and subsets keep the proportions of strata."""
        raise NotImplementedError

    def describe(self, labels: Mapping[str, Sequence[Label]]) -> list[str]:
        """Return lines for the user about the labels of each split."""
        raise NotImplementedError

    def demo_label(self, row: int, sentiment: int, texts: tuple[str, ...]) -> Label:
        """Return the label of row `row` of the demo data, whose first text is negative (`sentiment` 0) or positive (1)."""
        raise NotImplementedError

    # The model and its batches.

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the head's outputs, in order."""
        raise NotImplementedError

    @property
    def numbered(self) -> tuple[str, ...]:
        """Return the classes in the order that the task fixes, () if the training data fix it. Only with a fixed order can a trained head
        be loaded whose outputs have numbers (`LABEL_0`) instead of names."""
        return ()

    def columns(self, labels: Sequence[Label], size: int) -> dict[str, Column]:
        """Return the columns of batches for `size` examples with these labels. `labels` is empty for examples without labels."""
        raise NotImplementedError

    def head(self, config: Any, reader: nn.Module | None = None, style: Style = Style()) -> nn.Module:  # noqa: B008
        """Return the head. `reader` and `style` are as in `research.models.heads`."""
        raise NotImplementedError

    # Inside compiled programs.

    def loss(self, logits: jax.Array, batch: Batch, label_smoothing: Any = 0.0) -> tuple[jax.Array, jax.Array]:
        """Return two sums, float32 []: the losses of the examples (or tokens) of a batch, each times its weight, and these weights.

        The mean loss is the quotient of the two sums over all microbatches and devices."""
        raise NotImplementedError

    def divergence(self, logits: jax.Array, others: jax.Array, batch: Batch) -> jax.Array:
        """Return a symmetric divergence between the predictions of two passes, summed as the loss is: float32 []."""
        raise NotImplementedError

    def stats(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return sums over the batch, from which metrics are computed. `loss` and `weight` are those of `loss`, without smoothing."""
        raise NotImplementedError

    def outputs(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return the arrays that predictions are made from, [R, E, ...] or [R, L, ...] as `outputs_per` says.

        Words without a token have 0 or False there."""
        return {"logits": logits}

    # On the host.

    def metrics(
        self,
        stats: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        labels: Sequence[Label] = (),
    ) -> dict[str, float]:
        """Return the mean loss as `loss`, and the metrics. `stats` holds the sums over all batches. For training batches, `outputs`
        ([n, ...], or [W, ...] as `outputs_per` says) and `labels` are not given, and metrics that need them are left out; for dev and test
        they are given."""
        raise NotImplementedError

    @property
    def titles(self) -> dict[str, str]:
        """Return the metrics to show, in order, with their titles."""
        raise NotImplementedError

    @property
    def higher_is_better(self) -> bool:
        """Return the direction of `metric`."""
        return self.metric not in self.lower_is_better

    @property
    def selection(self) -> dict[str, Any]:
        """Return the entry `selection` of `result.json`: which metric selects the checkpoint and how it is shown."""
        return {
            "split": "dev",
            "metric": self.metric,
            "titles": self.titles,
            "percent": self.in_percent,
            "higher_is_better": self.higher_is_better,
        }

    def decode(self, outputs: Mapping[str, np.ndarray], texts: Sequence[tuple[str, ...]]) -> Iterator[dict[str, Any]]:
        """Yield the prediction of each example from its texts and from `outputs` ([n, ...] or [W, ...]): a JSON-able dict with
        `prediction`."""
        raise NotImplementedError

    def report(
        self,
        stats: Mapping[str, Mapping[str, np.ndarray]],
        outputs: Mapping[str, Mapping[str, np.ndarray]],
        labels: Mapping[str, Sequence[Label]],
    ) -> dict[str, Any]:
        """Return further entries of `result.json`, from the stats, outputs and labels of each split. Three are shown at the end of a run:
        `classes` (split -> class -> its `precision`, `recall`, `f1` and `support`), `confusion` (split -> matrix, whose rows are true
        classes) and, with it, `labels` (the names of the rows in order)."""
        return {}

    def hints(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return hints about problems that the predictions on dev show. `rows` are the lines of `predictions/dev.jsonl`, at least one. The
        task need not be fitted."""
        return []
