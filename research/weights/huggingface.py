"""Writing a model as a folder in the format of `transformers`."""

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
from research.weights.name_map import KINDS, to_torch
from research.weights.tables import TABLES
from research.weights.tokenizer import CONFIG, RULES

NOT_COPIED = ("_name_or_path", "torch_dtype", "problem_type", "num_labels")  # keys about the source's files or the source's task


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`, which is renamed to `path` when the block succeeds and removed when it fails.

    Raises InputError where `path` already exists and is not an empty folder.
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
    problem_type: str = "",
) -> None:
    """Write `config.json` and `model.safetensors`, which PyTorch's `transformers` can load.

    `config` is the content of the `config.json` that the model was built from. `tensors` are float32 arrays under Flax names
    ("encoder/...", "head/..."). `kind` is one of `name_map.KINDS`, or None for the encoder alone. `labels` are the class names and
    `problem_type` says how the head's outputs are read. Raises InputError where a tensor has no name in `transformers`.
    """
    from safetensors.numpy import save_file

    torch_tensors = to_torch(dict(tensors), TABLES[config["model_type"]], kind, prefix=kind is not None)
    write_config(folder, config, kind, labels, problem_type)
    save_file(torch_tensors, folder / "model.safetensors", metadata={"format": "pt"})


def write_config(
    folder: Path, config: Mapping[str, Any], kind: str | None = None, labels: Sequence[str] = (), problem_type: str = ""
) -> None:
    """Write `config.json`; the arguments are those of `write`."""
    family = config["model_type"]
    described = {name: value for name, value in config.items() if name not in NOT_COPIED}
    described |= {"architectures": [f"{TABLES[family].hub}{KINDS.get(kind, 'Model')}"], "dtype": "float32"}
    if labels:
        described |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
    if problem_type:
        described["problem_type"] = problem_type
    padding = families.family(config).style(config).padding
    if padding is not None:  # a classifier that reads the last token has to recognise padding
        described["pad_token_id"] = padding
    (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf8")


def copy_tokenizer(source: Path, folder: Path, tokenizer: Any, padding: int | None = None, truncation: str = "head") -> None:
    """Copy the tokenizer's files from `source` to `folder`, changed so that every library loads them with the ids of `tokenizer`.

    Texts are padded with the id `padding`, where it is given, and truncated on the side of the run's `truncation`. Where the rules in
    `tokenizer.json` contradict `tokenizer_config.json`, they are replaced by those of `tokenizer`, as `AutoTokenizer` would.
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
    """Raise InputError where `AutoTokenizer`, loaded from `folder`, encodes one of the texts differently from `tokenizer`."""
    from transformers import AutoTokenizer

    written = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in texts:
        expected, ids = tokenizer(text, verbose=False)["input_ids"], written(text, verbose=False)["input_ids"]
        if expected != ids:
            raise InputError(f"AutoTokenizer encodes {text!r} as {ids} with the files written, but the run as {expected}; it is not kept")
