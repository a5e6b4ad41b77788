"""The contract of tasks: everything about a run that depends on what the model has to predict.

Other modules know tasks only through `Task`. Letters in shapes: R rows of a batch, E places for examples in a row, L tokens of a row,
n examples.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import flax.linen as nn
import jax
import numpy as np

from research.errors import InputError, nearest
from research.models.heads import Style

Batch = Mapping[str, jax.Array]
Label = Any  # the target of an example as it stands in files and predictions: JSON-able and hashable
EXAMPLE, TOKEN = "example", "token"


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A task's dataset in TensorFlow Datasets, with the names of its text and label columns there."""

    name: str
    texts: tuple[str, ...]
    label: str
    splits: Mapping[str, str]
    """Split of this project -> split of the dataset. A missing `dev` is cut from train. Splits with hidden labels (-1) are left out."""


class Hub(NamedTuple):
    """The names of a task in `transformers`: `kind`, a key of `research.weights.name_map.KINDS`, and `problem_type` in `config.json`."""

    kind: str
    problem_type: str


class Column(NamedTuple):
    """Values of the examples that batches hold beside the tokens: one row of `values` for each example or for each token, as `per` says."""

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
    """Whether `outputs` returns an array [R, E, ...] of examples or [R, L, ...] of tokens."""

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

    def fit(self, labels: Sequence[Label], source: str) -> Self:
        """Return the task with what it learns from the training labels: classes, for example. `source` is for error messages."""
        raise NotImplementedError

    @property
    def learnt(self) -> dict[str, Any]:
        """Return what `fit` has learnt: JSON-able, for checkpoints."""
        raise NotImplementedError

    def with_learnt(self, learnt: Mapping[str, Any]) -> Self:
        """Return the task with the values that `learnt` returned, instead of fitting it."""
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

    def demo_label(self, row: int, sentiment: int) -> Label:
        """Return the label of row `row` of the demo data, whose text is negative (`sentiment` 0) or positive (1)."""
        raise NotImplementedError

    # Inside compiled programs.

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the names of the head's outputs, in order."""
        raise NotImplementedError

    @property
    def numbered(self) -> tuple[str, ...]:
        """Return the classes whose order the task fixes, so that a trained head may name them by number; () if the data fix it."""
        return ()

    def columns(self, labels: Sequence[Label], size: int) -> dict[str, Column]:
        """Return the columns of batches for `size` examples with these labels. `labels` is empty for examples without labels."""
        raise NotImplementedError

    def head(self, config: Any, reader: nn.Module | None = None, style: Style = Style()) -> nn.Module:  # noqa: B008
        """Return the head. `reader` and `style` are as in `research.models.heads`."""
        raise NotImplementedError

    def loss(self, logits: jax.Array, batch: Batch, label_smoothing: Any = 0.0) -> tuple[jax.Array, jax.Array]:
        """Return the loss of a batch, summed over its terms, in nats, and the sum of the weights of these terms: float32 [] both.

        The mean loss is the quotient of these sums over all microbatches and devices."""
        raise NotImplementedError

    def divergence(self, logits: jax.Array, others: jax.Array, batch: Batch) -> jax.Array:
        """Return a symmetric divergence between the predictions of two passes, summed as the loss is: float32 []."""
        raise NotImplementedError

    def stats(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return sums over the batch, from which metrics are computed. `loss` and `weight` are those of `loss`, without smoothing."""
        raise NotImplementedError

    def outputs(self, logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """Return the arrays that predictions are made from, [R, E, ...] or [R, L, ...] as `outputs_per` says."""
        return {"logits": logits}

    # On the host.

    def metrics(
        self,
        stats: Mapping[str, np.ndarray],
        outputs: Mapping[str, np.ndarray] | None = None,
        labels: Sequence[Label] = (),
    ) -> dict[str, float]:
        """Return `loss` and the metrics of `stats`, summed over batches. During training, `outputs` [n, ...] and `labels` are missing,
        and so are the metrics that need them."""
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

    def decode(self, outputs: Mapping[str, np.ndarray]) -> Iterator[dict[str, Any]]:
        """Yield the prediction of each example from `outputs` [n, ...]: a JSON-able dict with `prediction`."""
        raise NotImplementedError

    def report(self, stats: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
        """Return further entries of `result.json`, from the stats of each split. `classes` has scores of each class by split, and
        `confusion` has the confusion matrix by split; both are shown at the end of a run."""
        return {}

    def hints(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return hints about problems that the predictions on dev show. `rows` are the lines of `predictions/dev.jsonl`."""
        return []
