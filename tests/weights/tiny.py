"""A BERT small enough to compare by hand: its config, and its tensors as PyTorch's `transformers` names and shapes them."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

CONFIG = {
    "model_type": "bert",
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}
D, F = CONFIG["hidden_size"], CONFIG["intermediate_size"]


def shapes(classes: int = 0, pooler: bool = True) -> dict[str, tuple[int, ...]]:
    """Names and shapes, written out from the published layout and not from our table."""
    found = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], D),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], D),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], D),
        "embeddings.LayerNorm.weight": (D,),
        "embeddings.LayerNorm.bias": (D,),
    }
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            found |= {f"{layer}.{name}.weight": (D, D), f"{layer}.{name}.bias": (D,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            found |= {f"{layer}.{name}.weight": (D,), f"{layer}.{name}.bias": (D,)}
        found |= {f"{layer}.intermediate.dense.weight": (F, D), f"{layer}.intermediate.dense.bias": (F,)}
        found |= {f"{layer}.output.dense.weight": (D, F), f"{layer}.output.dense.bias": (D,)}
    if pooler:
        found |= {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,)}
    if classes:
        found = {f"bert.{name}": shape for name, shape in found.items()}
        found |= {"classifier.weight": (classes, D), "classifier.bias": (classes,)}
    return found


def tensors(classes: int = 0, pooler: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Random tensors by a rule that never changes (the legacy generator's stream is frozen); norms scale by about 1."""
    random = np.random.RandomState(seed)
    return {
        name: (random.normal(0.0, 0.2, shape) + name.endswith("LayerNorm.weight")).astype(np.float32)
        for name, shape in sorted(shapes(classes, pooler).items())
    }


def save(folder: Path, tensors: dict[str, np.ndarray], config: dict | None = None) -> Path:
    """A Hugging Face folder with a config and one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Three rows of 9, 5 and 1 tokens, padded to 9, the second half of each of type 1."""
    random = np.random.RandomState(seed)
    mask = (np.arange(9) < np.array([[9], [5], [1]])).astype(np.int64)
    tokens = random.randint(1, CONFIG["vocab_size"], mask.shape) * mask
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": mask * (np.arange(9) > 4)}
