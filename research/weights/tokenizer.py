"""Loading of a model's tokenizer, with the class that `transformers.AutoTokenizer` would choose, so that the ids are the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.errors import InputError
from research.weights.reader import read_object

CONFIG, RULES = "tokenizer_config.json", "tokenizer.json"
GENERIC = "PreTrainedTokenizerFast"  # uses tokenizer.json unchanged; other classes take its vocabulary and build their rules


def read(folder: Path, family_class: str, config: Mapping[str, Any], vocab_size: int) -> Any:
    """Return the folder's fast tokenizer, without truncation and padding, or None where the folder has no tokenizer.

    `family_class` is the tokenizer class of the model's family in `transformers` ("" for the generic one), `config` the content of its
    `config.json`. The choice of the class is made here, since `AutoTokenizer` imports PyTorch where it is installed. Raises InputError
    where the tokenizer cannot be read, is not a fast one, or has an id of `vocab_size` or more.
    """
    configured = (folder / CONFIG).is_file()
    described = read_object(folder / CONFIG) if configured else {}
    cls = _class(described, family_class, config, folder)
    if not (folder / RULES).is_file():
        files = () if cls.__name__ == "TokenizersBackend" else cls.vocab_files_names.items()
        needed = [name for key, name in files if key != "tokenizer_file"]
        missing = [name for name in needed if not (folder / name).is_file()]
        if configured and (missing or not needed):
            raise InputError(f"{folder}: {CONFIG}, but " + (f"neither {RULES} nor {missing[0]}" if missing else f"no {RULES}"))
        if missing or not needed:
            return None
    try:
        tokenizer = cls.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # the classes raise many types on files that they cannot parse
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{folder}: the tokenizer cannot be read as a {cls.__name__} ({reason})") from error
    size = 1 + max(tokenizer.get_vocab().values())
    if size > vocab_size:
        raise InputError(f"{folder}: the tokenizer has ids up to {size - 1}, but the config's vocab_size is {vocab_size}")
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    return tokenizer


def lowercased(tokenizer: Any) -> Any:
    """Make `tokenizer` lowercase texts first, as sentence-transformers does with `do_lower_case`, and return it."""
    from tokenizers import normalizers

    rules = tokenizer.backend_tokenizer
    rules.normalizer = normalizers.Sequence([normalizers.Lowercase(), *filter(None, [rules.normalizer])])
    return tokenizer


def _class(described: Mapping[str, Any], family_class: str, config: Mapping[str, Any], folder: Path) -> type:
    """Return the class that `AutoTokenizer` chooses: the one that the tokenizer's config, the model's config or the family names.

    It is the generic class where that name is not known or the family has no class. Raises InputError for a class that is not fast.
    """
    import transformers

    generic = getattr(transformers, GENERIC)
    if "auto_map" in described:
        raise InputError(f"{folder}: {CONFIG} asks for custom code (auto_map), which is not run")
    name = described.get("tokenizer_class") or config.get("tokenizer_class") or family_class
    known = getattr(transformers, name, None) or getattr(transformers, name.removesuffix("Fast"), None) if family_class and name else None
    if known is not None and not issubclass(known, generic):
        raise InputError(f"{folder}: {CONFIG} asks for {name}, which is not a fast tokenizer of transformers")
    return known or generic
