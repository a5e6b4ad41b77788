"""Pooling: which vector of an example the classifier reads. All programs resolve `pooling=auto` here."""

from typing import Any

from ml_collections import ConfigDict

from research.adapt import methods
from research.config.fields import AUTO
from research.errors import InputError, nearest
from research.models.heads import POOLINGS, Style
from research.weights import adapter

READS_OTHERS = "the loaded head reads the last states, but the method reads others"


def resolve(config: ConfigDict, checkpoint: Any, style: Style, has_reader: bool, pools: bool = True) -> tuple[str, str]:
    """Return the pooling of a run and the reason for it.

    A loaded head keeps the pooling that it was trained with. For a new head the first that names a pooling decides: the config, the method,
    the folder of the weights, the family ("pooler"). Without `pools`, the head reads all tokens and the pooling stays "auto". Raise
    InputError for an unknown name, if a loaded head would read another vector, and for a pooling without `pools`.
    """
    requested, modules = config.pooling, checkpoint.modules
    if requested not in (AUTO, *POOLINGS):
        raise InputError(f"pooling {requested!r} is not known; {nearest(requested, (AUTO, *POOLINGS))}")
    if not pools:
        return _check_tokens(config, has_reader)
    if loaded := _loaded_head(config, checkpoint):
        return _check_loaded_head(requested, *loaded, style, has_reader)
    if requested != AUTO:
        return requested, "config.pooling"
    if preferences := methods.poolings(config.method):
        return preferences[0], f"method={config.method} wants it"
    if modules is not None and modules.pooling:
        return modules.pooling, f"{modules.file} in the folder of the weights"
    if modules is not None:
        return "pooler", f"the family's own; {' + '.join(modules.poolings)}, as {modules.file} says, does not exist here"
    return "pooler", "the family's own"


def _check_tokens(config: ConfigDict, has_reader: bool) -> tuple[str, str]:
    """Return the pooling and the reason for a head that reads all tokens. Raise InputError where the config contradicts it."""
    if config.pooling != AUTO:
        raise InputError(
            f"pooling={config.pooling}: task {config.task!r} reads every token, so nothing is pooled; leave out --config.pooling"
        )
    if config.weights.adapter and adapter.has_head(config.weights.adapter):
        raise InputError(f"weights.adapter: its head is for texts, and task {config.task!r} reads every token; leave out weights.adapter")
    if config.weights.head and has_reader:
        raise InputError(f"weights.head: {READS_OTHERS}; leave out weights.head or the method")
    return AUTO, "none: the head reads every token"


def _loaded_head(config: ConfigDict, checkpoint: Any) -> tuple[str, str, str] | None:
    """Return the config field that loads a trained head, the pooling of the head and the reason for it. Return None for a new head."""
    if config.weights.adapter and adapter.has_head(config.weights.adapter):
        return "weights.adapter", "pooler", "the loaded head was trained with the family's own"
    if not config.weights.head:
        return None
    if checkpoint.is_sentence_classifier:
        reason = f"the loaded head was trained with {' + '.join(checkpoint.modules.poolings)}, as {checkpoint.modules.file} says"
        return "weights.head", checkpoint.modules.pooling, reason
    return "weights.head", "pooler", "the loaded head was trained with the family's own"


def _check_loaded_head(requested: str, field: str, pooling: str, reason: str, style: Style, has_reader: bool) -> tuple[str, str]:
    """Return the pooling of a loaded head and the reason. Raise InputError if the config names another or the method reads other states."""
    if not pooling:
        raise InputError(f"{field}: {reason}, but it does not exist here; leave out {field} to begin with a new head")
    if has_reader:
        raise InputError(f"{field}: {READS_OTHERS}; leave out {field} or the method")
    if requested not in (AUTO, pooling) and not (pooling == "pooler" and Style(requested) == style):
        raise InputError(f"pooling={requested}: the head that {field} loads was trained with pooling={pooling}; leave out --config.pooling")
    return pooling, reason
