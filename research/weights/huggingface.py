"""A model as a folder in the format of `transformers`."""

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from research.errors import InputError
from research.models import families
from research.weights.hub import TOKENIZER
from research.weights.name_map import KINDS, to_theirs
from research.weights.tables import TABLES
from research.weights.tokenizer import CONFIG, RULES

ANOTHERS = ("_name_or_path", "torch_dtype", "problem_type", "num_labels")  # what a config.json says of another file or another task


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Gives an empty folder beside `path`, which becomes `path` when the block ends well, and else goes.

    Raises InputError where `path` is there already and is not an empty folder.
    """
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise InputError(f"--output={path} is there already; remove it or give another folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield part
        part.chmod(0o755)
        part.replace(path)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write(
    folder: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    *,
    kind: str | None = None,
    labels: Sequence[str] = (),
) -> None:
    """Writes `config.json` and `model.safetensors`, which PyTorch `transformers` loads.

    `config` is the `config.json` that the model was built from, `tensors` float32 under our names ("encoder/...", "head/..."), `kind`
    one of `names.KINDS` or None for the encoder alone, `labels` what the classes are called. Raises InputError where a tensor has
    no name there.
    """
    from safetensors.numpy import save_file

    theirs = to_theirs(dict(tensors), TABLES[config["model_type"]], kind, prefix=kind is not None)
    write_config(folder, config, kind, labels)
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})


def write_config(folder: Path, config: Mapping[str, Any], kind: str | None = None, labels: Sequence[str] = ()) -> None:
    """Writes `config.json`; the arguments are those of `write`."""
    family = config["model_type"]
    described = {name: value for name, value in config.items() if name not in ANOTHERS}
    described |= {"architectures": [f"{TABLES[family].hub}{KINDS.get(kind, 'Model')}"], "dtype": "float32"}
    if labels:
        described |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        described |= {"problem_type": "single_label_classification"}
    padding = families.family(config).style(config).padding
    if padding is not None:  # a classifier that reads the last token must know what is none
        described["pad_token_id"] = padding
    (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf8")


def copy_tokenizer(source: Path, folder: Path, tokenizer: Any, padding: int | None = None, truncation: str = "head") -> None:
    """Copies the tokenizer's files, so that every reader of them gets the ids of `tokenizer`, texts padded with the id `padding` where
    that is given, and longer texts cut as the run's `truncation` does.

    Where `tokenizer.json` says other rules than `tokenizer_config.json`, the latter hold, as they do for `AutoTokenizer`.
    """
    for pattern in TOKENIZER:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    if (folder / RULES).exists():
        rules = json.loads(tokenizer.backend_tokenizer.to_str()) | {"truncation": None, "padding": None}
        (folder / RULES).write_text(json.dumps(rules, indent=2, ensure_ascii=False) + "\n", encoding="utf8")
    path = folder / CONFIG
    described = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    changes = {"truncation_side": "left" if truncation == "tail" else "right"}
    if padding is not None:
        changes["pad_token"] = tokenizer.convert_ids_to_tokens(padding)
    path.write_text(json.dumps(described | changes, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf8")


def check_tokenizer(folder: Path, tokenizer: Any, texts: Sequence[str]) -> None:
    """Raises InputError where `AutoTokenizer` makes other ids of the texts, by the files in `folder`, than `tokenizer` does."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in texts:
        ours, found = tokenizer(text, verbose=False)["input_ids"], theirs(text, verbose=False)["input_ids"]
        if ours != found:
            raise InputError(f"AutoTokenizer reads {text!r} as {found} by the files written, but the run as {ours}; it is not kept")
