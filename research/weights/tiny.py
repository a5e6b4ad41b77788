"""A tiny model for smoke runs: a BERT of two small layers with random parameters and a tokenizer of single characters.

It is generated as a folder in the Hugging Face format, so it is loaded in the same way as pretrained models.
"""

import json
import string
import tempfile
from pathlib import Path

import numpy as np

from research import storage

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
VOCABULARY = (*SPECIAL, *(mark + c for mark in ("", "##") for c in string.ascii_lowercase + string.digits), *string.punctuation)
CONFIG = {
    "model_type": "bert",
    "architectures": ["BertModel"],
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "initializer_range": 0.02,
    "pad_token_id": 0,
}


def folder() -> Path:
    """Return the folder of the tiny model, which the first call generates in the cache."""
    path = storage.folder("models") / "tiny-1"
    if not path.is_dir():
        with tempfile.TemporaryDirectory(dir=path.parent) as part:
            write(Path(part) / path.name)
            try:
                (Path(part) / path.name).rename(path)
            except OSError:  # another process has renamed its folder first
                if not path.is_dir():
                    raise
    return path


def write(path: Path) -> None:
    """Write config.json, model.safetensors, tokenizer.json, tokenizer_config.json and vocab.txt into the new folder `path`."""
    from safetensors.numpy import save_file

    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG, indent=2))
    save_file(_tensors(), path / "model.safetensors")
    _tokenizer().save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 128})
    )
    (path / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY))


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    ids = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordPiece(ids, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.add_special_tokens(list(SPECIAL))
    return tokenizer


def _tensors() -> dict[str, np.ndarray]:
    rng, D, F = np.random.default_rng(0), CONFIG["hidden_size"], CONFIG["intermediate_size"]
    tensors = {}

    def dense(name: str, inputs: int, outputs: int) -> None:
        tensors[f"{name}.weight"] = rng.normal(0, 0.02, (outputs, inputs)).astype(np.float32)
        tensors[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(name: str) -> None:
        tensors[f"{name}.weight"], tensors[f"{name}.bias"] = np.ones(D, np.float32), np.zeros(D, np.float32)

    for table, size in (("word", "vocab_size"), ("position", "max_position_embeddings"), ("token_type", "type_vocab_size")):
        tensors[f"embeddings.{table}_embeddings.weight"] = rng.normal(0, 0.02, (CONFIG[size], D)).astype(np.float32)
    norm("embeddings.LayerNorm")
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for part in ("query", "key", "value"):
            dense(f"{layer}.attention.self.{part}", D, D)
        dense(f"{layer}.attention.output.dense", D, D)
        norm(f"{layer}.attention.output.LayerNorm")
        dense(f"{layer}.intermediate.dense", D, F)
        dense(f"{layer}.output.dense", F, D)
        norm(f"{layer}.output.LayerNorm")
    dense("pooler.dense", D, D)
    return tensors
