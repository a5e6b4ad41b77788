"""Classification: each example has one of C classes. Losses are sums weighted by `weights`; the caller divides them once.

Letters: B rows, E examples per row, C classes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from research.models.heads import Classifier, Style
from research.tasks.metrics import classification_scores, of_classes


def head(labels: Sequence[str], config, reader=None, style: Style = Style()) -> Classifier:  # noqa: B008
    """Return the head for the classes `labels`. `reader` and `style` are as in `Classifier`."""
    return Classifier(classes=len(labels), pooling=config.pooling, dropout=config.dropout, reader=reader, style=style)


def targets(names: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Return the indices of the label names in `labels`, int32 [n]."""
    indices = {label: i for i, label in enumerate(labels)}
    return np.asarray([indices[name] for name in names], np.int32)


def loss_sum(logits: jax.Array, batch: dict[str, jax.Array], label_smoothing: float = 0.0) -> jax.Array:
    """Return the cross-entropy of logits [B, E, C], summed over the examples (weight 1; empty places have weight 0), in nats.

    With label smoothing s the target is 1 - s + s / C for the true class and s / C for the others (Szegedy et al. 2016).
    """
    classes = logits.shape[-1]
    target = optax.smooth_labels(jax.nn.one_hot(batch["labels"], classes), label_smoothing)
    return (optax.softmax_cross_entropy(logits, target) * batch["weights"]).sum()


def divergence(logits: jax.Array, others: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """Return KL(p || q) + KL(q || p) = sum (p - q) (log p - log q), summed over the examples, in nats.

    p and q are the softmax of `logits` and of `others`, [B, E, C] each.
    """
    p, q = jax.nn.log_softmax(logits), jax.nn.log_softmax(others)
    return (((jnp.exp(p) - jnp.exp(q)) * (p - q)).sum(-1) * batch["weights"]).sum()


def totals(logits: jax.Array, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Return the sums that metrics are computed from: `loss` and the confusion matrix `confusion` [C, C] (rows are true classes)."""
    classes = logits.shape[-1]
    true = jax.nn.one_hot(batch["labels"], classes) * batch["weights"][..., None]
    predicted = jax.nn.one_hot(logits.argmax(-1), classes)
    return {"loss": loss_sum(logits, batch), "confusion": jnp.einsum("bet,bep->tp", true, predicted)}


def scores(totals: dict[str, np.ndarray], positive: int | None = None) -> dict[str, float]:
    """Return the metrics of `totals` summed over batches: the mean loss and `metrics.classification_scores`."""
    count = np.asarray(totals["confusion"]).sum()
    return {"loss": float(totals["loss"] / count), **classification_scores(totals["confusion"], positive)}


def by_class(totals: dict[str, np.ndarray], labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return precision, recall, f1 and support of each class, by class name."""
    columns = of_classes(totals["confusion"])
    return {label: {name: column[i].item() for name, column in columns.items()} for i, label in enumerate(labels)}


def predictions(logits: np.ndarray, labels: Sequence[str]) -> list[dict]:
    """Return, for each row of logits [n, C], the predicted label and the probability of each class by name."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = shifted / shifted.sum(-1, keepdims=True)
    return [
        {
            "prediction": labels[int(row.argmax())],
            "probabilities": {label: round(float(p), 6) for label, p in zip(labels, row, strict=True)},
        }
        for row in probabilities
    ]
