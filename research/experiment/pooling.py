"""Which vector of an example the classifier reads: decides `pooling=auto`, for all programs in this one place."""

from typing import Any

from ml_collections import ConfigDict

from research.adapt import methods
from research.config.fields import AUTO
from research.errors import InputError, nearest
from research.models.heads import POOLINGS, Style
from research.weights import adapter


def resolve(config: ConfigDict, checkpoint: Any, style: Style, has_reader: bool) -> tuple[str, str]:
    """Return the pooling of a run and the reason for it.

    A head that is loaded keeps the pooling it was trained with; then the config decides, then the method, then the folder of the weights,
    then the family ("pooler"). Raises InputError for an unknown name, and where a loaded head would read another vector.
    """
    asked, modules = config.pooling, checkpoint.modules
    if asked not in (AUTO, *POOLINGS):
        raise InputError(f"pooling {asked!r} is not known; {nearest(asked, (AUTO, *POOLINGS))}")
    if loaded := _of_head(config, checkpoint):
        return _kept(asked, *loaded, style, has_reader)
    if asked != AUTO:
        return asked, "config.pooling"
    if wanted := methods.wanted(config.method, "pooling"):
        return wanted[0], f"method={config.method} wants it"
    if modules is not None and modules.pooling:
        return modules.pooling, f"{modules.file} in the folder of the weights"
    if modules is not None:
        return "pooler", f"the family's own; {' + '.join(modules.poolings)}, as {modules.file} says, does not exist here"
    return "pooler", "the family's own"


def _of_head(config: ConfigDict, checkpoint: Any) -> tuple[str, str, str] | None:
    """The field that loads a trained head, the head's pooling and the reason; None where the head is new."""
    if config.weights.adapter and adapter.has_head(config.weights.adapter):
        return "weights.adapter", "pooler", "the loaded head was trained with the family's own"
    if not config.weights.head:
        return None
    if checkpoint.is_sentence_classifier:
        said = f"the loaded head was trained with {' + '.join(checkpoint.modules.poolings)}, as {checkpoint.modules.file} says"
        return "weights.head", checkpoint.modules.pooling, said
    return "weights.head", "pooler", "the loaded head was trained with the family's own"


def _kept(asked: str, field: str, pooling: str, why: str, style: Style, has_reader: bool) -> tuple[str, str]:
    """The pooling of a loaded head. Raises InputError where another one is asked for, or the method reads other states."""
    if not pooling:
        raise InputError(f"{field}: {why}, but it does not exist here; leave out {field} to begin with a new head")
    if has_reader:
        raise InputError(f"{field}: the loaded head reads the last states, but the method reads others; leave out {field} or the method")
    if asked not in (AUTO, pooling) and not (pooling == "pooler" and Style(asked) == style):
        raise InputError(f"pooling={asked}: the head that {field} loads was trained with pooling={pooling}; leave out --config.pooling")
    return pooling, why
