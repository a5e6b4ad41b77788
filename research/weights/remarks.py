"""What a plan says of a checkpoint: parts that it lacks, and what its folder says that the run does otherwise."""

from collections.abc import Iterable
from typing import Any

from research.models import families


def remarks(checkpoint: Any, config: Any, missing: Iterable[str]) -> tuple[str, ...]:
    """Return a line for each. `config` is the run's, `missing` are the encoder's parameters that the checkpoint lacks."""
    return (*_missing(missing), *_dropout(checkpoint.config, config), *_sentence(checkpoint.modules, config))


def _missing(names: Iterable[str]) -> list[str]:
    modules = sorted({name.rpartition("/")[0] for name in names})
    return [f"{', '.join(modules)} begins random: the checkpoint has none; --config.pooling=first or mean needs none"] if modules else []


def _dropout(shape: Any, config: Any) -> list[str]:
    """The checkpoint's own rates, where the run has others."""
    family = families.family(shape)
    ours = (config.dropout, config.dropout if config.attention_dropout is None else config.attention_dropout)
    own = {name: rate for name, used in zip(family.rates, ours, strict=True) if (rate := shape.get(name, family.rate)) != used}
    said = ", ".join(f"{name} {rate:g}" for name, rate in own.items())
    return [f"dropout: {config.dropout:g} (config.dropout); the checkpoint's own: {said}"] if own else []


def _sentence(modules: Any, config: Any) -> list[str]:
    """What a folder of sentence-transformers says."""
    if modules is None:
        return []
    lines, length = [], modules.transformer.get("max_seq_length")
    if length and config.max_length > length:
        lines.append(f"max_length: {config.max_length}; the model was trained on texts of at most {length} tokens (max_seq_length)")
    if modules.dense and not config.weights.head:
        lines.append(f"{modules.dense.name}: left out (with labels in config.json, --config.weights.head=True begins with it)")
    return lines
