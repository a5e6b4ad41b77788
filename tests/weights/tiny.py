"""A small BERT for tests: its config, and its tensors with the names and shapes of PyTorch's `transformers`."""

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
    """Return the names and shapes of the tensors, independently of the tables in research/weights."""
    layout = {
        "embeddings.word_embeddings.weight": (CONFIG["vocab_size"], D),
        "embeddings.position_embeddings.weight": (CONFIG["max_position_embeddings"], D),
        "embeddings.token_type_embeddings.weight": (CONFIG["type_vocab_size"], D),
        "embeddings.LayerNorm.weight": (D,),
        "embeddings.LayerNorm.bias": (D,),
    }
    for i in range(CONFIG["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            layout |= {f"{layer}.{name}.weight": (D, D), f"{layer}.{name}.bias": (D,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            layout |= {f"{layer}.{name}.weight": (D,), f"{layer}.{name}.bias": (D,)}
        layout |= {f"{layer}.intermediate.dense.weight": (F, D), f"{layer}.intermediate.dense.bias": (F,)}
        layout |= {f"{layer}.output.dense.weight": (D, F), f"{layer}.output.dense.bias": (D,)}
    if pooler:
        layout |= {"pooler.dense.weight": (D, D), "pooler.dense.bias": (D,)}
    if classes:
        layout = {f"bert.{name}": shape for name, shape in layout.items()}
        layout |= {"classifier.weight": (classes, D), "classifier.bias": (classes,)}
    return layout


def tensors(classes: int = 0, pooler: bool = True, seed: int = 0) -> dict[str, np.ndarray]:
    """Return random tensors, the weights of norms about 1, from NumPy's legacy generator, whose stream never changes."""
    random = np.random.RandomState(seed)
    return {
        name: (random.normal(0.0, 0.2, shape) + name.endswith("LayerNorm.weight")).astype(np.float32)
        for name, shape in sorted(shapes(classes, pooler).items())
    }


def save(folder: Path, tensors: dict[str, np.ndarray], config: dict | None = None) -> Path:
    """Write a Hugging Face folder with a config and one safetensors file; return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    save_file(tensors, folder / "model.safetensors")
    return folder


def inputs(seed: int = 0) -> dict[str, np.ndarray]:
    """Return three rows of 9, 5 and 1 tokens, padded to 9; the tokens from the sixth on have type 1."""
    random = np.random.RandomState(seed)
    mask = (np.arange(9) < np.array([[9], [5], [1]])).astype(np.int64)
    tokens = random.randint(1, CONFIG["vocab_size"], mask.shape) * mask
    return {"input_ids": tokens, "attention_mask": mask, "token_type_ids": mask * (np.arange(9) > 4)}
