"""The tokenizer of a model's folder: the one that `transformers.AutoTokenizer` would choose, and so the same ids."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.errors import InputError
from research.weights.reader import read_object

CONFIG, RULES = "tokenizer_config.json", "tokenizer.json"
GENERIC = "PreTrainedTokenizerFast"  # takes tokenizer.json as it is; other classes build their own rules around its vocabulary


def read(folder: Path, own: str, config: Mapping[str, Any], vocab_size: int) -> Any:
    """Return the folder's fast tokenizer, with neither truncation nor padding set, or None where it has none.

    `own` is the class in `transformers` of the model's family ("" for the generic one), `config` the contents of its `config.json`.
    `AutoTokenizer` itself would import PyTorch where that is installed, so its choice of a class is made here. Raises InputError where
    the tokenizer cannot be read or is not a fast one, or an id is not below `vocab_size`.
    """
    configured = (folder / CONFIG).is_file()
    described = read_object(folder / CONFIG) if configured else {}
    found = _class(described, own, config, folder)
    if not (folder / RULES).is_file():
        files = () if found.__name__ == "TokenizersBackend" else found.vocab_files_names.items()
        needed = [name for key, name in files if key != "tokenizer_file"]
        missing = [name for name in needed if not (folder / name).is_file()]
        if configured and (missing or not needed):
            raise InputError(f"{folder}: {CONFIG}, but " + (f"neither {RULES} nor {missing[0]}" if missing else f"no {RULES}"))
        if missing or not needed:
            return None
    try:
        tokenizer = found.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever the class makes of files that it does not understand
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{folder}: the tokenizer cannot be read as a {found.__name__} ({reason})") from error
    size = 1 + max(tokenizer.get_vocab().values())
    if size > vocab_size:
        raise InputError(f"{folder}: the tokenizer has ids up to {size - 1}, but the config's vocab_size is {vocab_size}")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def lowercased(tokenizer: Any) -> Any:
    """Return `tokenizer`, which now puts texts into lower case first, as sentence-transformers does with `do_lower_case`."""
    from tokenizers import normalizers

    rules = tokenizer.backend_tokenizer
    rules.normalizer = normalizers.Sequence([normalizers.Lowercase(), *filter(None, [rules.normalizer])])
    return tokenizer


def _class(described: Mapping[str, Any], own: str, config: Mapping[str, Any], folder: Path) -> type:
    """Return the class that `AutoTokenizer` chooses: the one that is asked for, by the tokenizer's files or else the model's, where the
    family has one of its own; the generic one where it is not known. Raises InputError for one that has no fast rules."""
    import transformers

    generic = getattr(transformers, GENERIC)
    if "auto_map" in described:
        raise InputError(f"{folder}: {CONFIG} asks for code of its own (auto_map), which is not run")
    asked = described.get("tokenizer_class") or config.get("tokenizer_class") or own
    known = getattr(transformers, asked, None) or getattr(transformers, asked.removesuffix("Fast"), None) if own and asked else None
    if known is not None and not issubclass(known, generic):
        raise InputError(f"{folder}: {CONFIG} asks for {asked}, which is not a fast tokenizer of transformers; it is not read")
    return known or generic
