"""The kind of task that gives each example one of C classes. Everything is a sum over `weights`, divided once by the caller.

Letters: B rows, E examples of a row, C classes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.models.heads import Classifier, Style
from research.tasks.metrics import classification_scores, of_classes


def head(labels: Sequence[str], config, reader=None, style: Style = Style()) -> Classifier:  # noqa: B008
    """The head for classes called `labels`; `reader` and `style` are as in `Classifier`."""
    return Classifier(classes=len(labels), pooling=config.pooling, dropout=config.dropout, reader=reader, style=style)


def targets(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Label names -> int32 [n], their places in `labels`."""
    places = {label: i for i, label in enumerate(labels)}
    return np.asarray([places[name] for name in names], np.int32)


def loss_sum(logits: jax.Array, batch: dict[str, jax.Array], label_smoothing: float = 0.0) -> jax.Array:
    """Sum of the cross-entropies of logits [B, E, C] over the examples that are there, in nats.

    With label smoothing s the target is 1 - s + s / C for the true class and s / C for the others (Szegedy et al. 2016).
    """
    classes = logits.shape[-1]
    wanted = optax.smooth_labels(jax.nn.one_hot(batch["labels"], classes), label_smoothing)
    return (optax.softmax_cross_entropy(logits, wanted) * batch["weights"]).sum()


def divergence(logits: jax.Array, others: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """Sum of KL(p || q) + KL(q || p) = sum (p - q) (log p - log q) over the examples that are there, in nats.

    p and q are what the two logits [B, E, C] say.
    """
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return (((jnp.exp(p) - jnp.exp(q)) * (p - q)).sum(-1) * batch["weights"]).sum()


def totals(logits: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """What metrics are made of: `loss` (summed), `confusion` [C, C] (rows the truth)."""
    classes = logits.shape[-1]
    true = jax.nn.one_hot(batch["labels"], classes) * batch["weights"][..., None]
    predicted = jax.nn.one_hot(logits.argmax(-1), classes)
    return {"loss": loss_sum(logits, batch), "confusion": jnp.einsum("bet,bep->tp", true, predicted)}


def scores(totals: dict[str, np.ndarray], positive: int | None = None) -> dict[str, float]:
    """Return the metrics of the added-up `totals`: mean loss and `metrics.classification_scores`."""
    count = np.asarray(totals["confusion"]).sum()
    return {"loss": float(totals["loss"] / count), **classification_scores(totals["confusion"], positive)}


def by_class(totals: dict[str, np.ndarray], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, f1 and support of each class, by name."""
    columns = of_classes(totals["confusion"])
    return {label: {name: column[i].item() for name, column in columns.items()} for i, label in enumerate(labels)}


def predictions(logits: np.ndarray, labels: Sequence[str]) -> list[dict]:
    """For logits [n, C]: the predicted label and the probability of each, by name."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = shifted / shifted.sum(-1, keepdims=True)
    return [
        {
            "prediction": labels[int(row.argmax())],
            "probabilities": {label: round(float(p), 6) for label, p in zip(labels, row, strict=True)},
        }
        for row in probabilities
    ]
