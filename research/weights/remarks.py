"""Remarks about a checkpoint in the plan of a run: missing parameters, and settings in its folder that the run does not follow."""

from collections.abc import Iterable
from typing import Any

from research.models import families


def remarks(checkpoint: Any, config: Any, missing: Iterable[str]) -> tuple[str, ...]:
    """Return one line per remark. `config` is the run's config, `missing` names the encoder parameters that the checkpoint lacks."""
    return (*_missing(missing), *_dropout(checkpoint.config, config), *_sentence(checkpoint.modules, config))


def _missing(names: Iterable[str]) -> list[str]:
    modules = sorted({name.rpartition("/")[0] for name in names})
    return [f"{', '.join(modules)} begins random: the checkpoint has none; --config.pooling=first or mean works without"] if modules else []


def _dropout(shape: Any, config: Any) -> list[str]:
    """Return a line with the dropout rates of the checkpoint's config that differ from those of the run."""
    family = families.family(shape)
    run_rates = (config.dropout, config.dropout if config.attention_dropout is None else config.attention_dropout)
    different = {name: rate for name, used in zip(family.rates, run_rates, strict=True) if (rate := shape.get(name, family.rate)) != used}
    listed = ", ".join(f"{name} {rate:g}" for name, rate in different.items())
    return [f"dropout: {config.dropout:g} (config.dropout); the checkpoint's own: {listed}"] if different else []


def _sentence(modules: Any, config: Any) -> list[str]:
    """Return lines about the settings of a folder of sentence-transformers that the run does not follow."""
    if modules is None:
        return []
    lines, length = [], modules.transformer.get("max_seq_length")
    if length and config.max_length > length:
        lines.append(f"max_length: {config.max_length}; the model was trained on texts of at most {length} tokens (max_seq_length)")
    if modules.dense and not config.weights.head:
        lines.append(f"{modules.dense.name}: not loaded (--config.weights.head=True loads it where config.json names the classes)")
    return lines
