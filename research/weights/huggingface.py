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
from research.models.heads import Style
from research.weights.hub import TOKENIZER
from research.weights.names import KINDS, to_theirs
from research.weights.tables import TABLES

CLASSES = {"bert": "Bert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "distilbert": "DistilBert", "electra": "Electra"}
CLASSES |= {"albert": "Albert", "modernbert": "ModernBert", "deberta-v2": "DebertaV2", "gpt2": "GPT2"}
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

    family = config["model_type"]
    theirs = to_theirs(dict(tensors), TABLES[family], kind, prefix=kind is not None)
    described = {name: value for name, value in config.items() if name not in ANOTHERS}
    described |= {"architectures": [f"{CLASSES[family]}{KINDS.get(kind, 'Model')}"], "dtype": "float32"}
    if labels:
        described |= {"id2label": dict(enumerate(labels)), "label2id": {label: i for i, label in enumerate(labels)}}
        described |= {"problem_type": "single_label_classification"}
    if described.get("pad_token_id") is None:  # a classifier that reads the last token must know what is none
        described["pad_token_id"] = described.get("eos_token_id")
    (folder / "config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n", encoding="utf8")
    save_file(theirs, folder / "model.safetensors", metadata={"format": "pt"})


def copy_tokenizer(source: Path, folder: Path, tokenizer: Any) -> None:
    """Copies the tokenizer's files as they are. One that has no token for padding is given its last one, which ends texts: without,
    nobody could use it on two texts at once."""
    for pattern in TOKENIZER:
        for path in source.glob(pattern):
            shutil.copyfile(path, folder / path.name)
    path = folder / "tokenizer_config.json"
    described = json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
    if not described.get("pad_token") and "<|endoftext|>" in tokenizer.get_vocab():
        path.write_text(json.dumps(described | {"pad_token": "<|endoftext|>"}, indent=2, sort_keys=True) + "\n", encoding="utf8")


def check_pooling(pooling: str, style: Style, has_reader: bool, family: str) -> None:
    """Raises InputError where a classifier is not built as `transformers` builds those of its family, or it has no such family."""
    if family not in CLASSES:
        raise InputError(f"model={family} is of a family that transformers does not have; there is nothing to export to")
    if has_reader or (pooling != "pooler" and Style(pooling) != style):
        what = "a method that reads several states" if has_reader else f"pooling={pooling}"
        raise InputError(f"{what}: transformers' {family} classifiers have no place for it; train with --config.pooling=pooler to export")
