"""A small model of each family for tests: its `config.json`, reproducible random tensors, inputs, and its PyTorch model."""

import functools
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from research import weights
from research.weights import tiny, tokenizer
from research.weights.tables import TABLES

SMALL = {
    "vocab_size": 120,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 48,
}
_BERT = SMALL | {"type_vocab_size": 2}
_ROBERTA = SMALL | {"type_vocab_size": 1, "pad_token_id": 1}
_MODERNBERT = {"model_type": "modernbert", **SMALL, "num_hidden_layers": 4, "local_attention": 8, "pad_token_id": 0}
_MODERNBERT |= {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
_BIASED = {"norm_bias": True, "attention_bias": True, "mlp_bias": True, "classifier_bias": True, "classifier_pooling": "mean"}
_DEBERTA = {"model_type": "deberta-v2", **SMALL, "relative_attention": True}
_V3 = {"position_buckets": 8, "norm_rel_ebd": "layer_norm", "share_att_key": True, "pos_att_type": ["p2c", "c2p"]}
_V3 |= {"position_biased_input": False, "type_vocab_size": 0, "max_relative_positions": -1}
_V2 = {"share_att_key": False, "pos_att_type": "c2p|p2c", "position_biased_input": True, "type_vocab_size": 2, "max_relative_positions": 16}
_GPT2 = {"vocab_size": 120, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 48, "bos_token_id": 1, "eos_token_id": 1}

CONFIGS = {
    "bert": {"model_type": "bert", **_BERT},
    "roberta": {"model_type": "roberta", **_ROBERTA},
    "xlm-roberta": {"model_type": "xlm-roberta", **_ROBERTA},
    "distilbert": {"model_type": "distilbert", "vocab_size": 120, "dim": 24, "n_layers": 3, "n_heads": 4, "hidden_dim": 40}
    | {"max_position_embeddings": 48},
    "electra": {"model_type": "electra", **_BERT, "embedding_size": 16},
    "electra-plain": {"model_type": "electra", **_BERT, "embedding_size": 24},
    "albert": {"model_type": "albert", **_BERT, "embedding_size": 16},
    "albert-groups": {"model_type": "albert", **_BERT, "embedding_size": 16, "num_hidden_layers": 4, "num_hidden_groups": 2},
    "modernbert": _MODERNBERT,
    "modernbert-biased": _MODERNBERT | _BIASED,
    "deberta-v3": _DEBERTA | _V3,
    "deberta-v2": _DEBERTA | _V2,
    "gpt2": {"model_type": "gpt2", **_GPT2, "pad_token_id": 0},
}
GOLDENS = Path(__file__).parents[1] / "goldens"
CLASSES = 3
LENGTHS = (24, 11, 1)  # tokens of each text; more than ModernBERT's window of 4 to each side and DeBERTa's 4 exact distances


def language_model(name: str) -> str:
    """Return the kind of head of a family's language models."""
    return "lm" if name == "gpt2" else "masked_lm"


def tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a random tensor that depends only on its PyTorch name and `seed`; the weights of norms are about 1.

    NumPy's legacy generator is used, since its stream never changes.
    """
    random = np.random.RandomState(zlib.crc32(f"{seed} {name}".encode()))
    scale = len(shape) == 1 and name.endswith("weight")
    return (random.normal(0.0, 0.2, shape) + scale).astype(np.float32)


def tensors(layout: dict[str, list[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """Return the tensors of a model with the names and shapes of `layout`."""
    return {name: tensor(name, tuple(shape), seed) for name, shape in layout.items()}


def golden(name: str) -> dict[str, np.ndarray]:
    """Return the saved PyTorch outputs of the family's classifier, and the names and shapes of its tensors (`layout`, JSON)."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)


def layout(name: str) -> dict[str, list[int]]:
    """Return the PyTorch names and shapes of the tensors of the family's classifier."""
    return json.loads(golden(name)["layout"].item())


def classifier(name: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the PyTorch tensors of the family's classifier."""
    return tensors(layout(name), seed)


@functools.cache
def load(name: str):
    """Save the family's classifier in a folder and load it: (encoder and head in one, parameters)."""
    with tempfile.TemporaryDirectory() as folder:
        return weights.load(str(save(Path(folder), name, classifier(name))), head=True)[:2]


def save(folder: Path, name: str, tensors: dict[str, np.ndarray], **changes) -> Path:
    """Write a Hugging Face folder of the family: a minimal config and one safetensors file. Return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name] | {"num_labels": CLASSES} | changes))
    save_file(tensors, folder / "model.safetensors")
    return folder


def save_tokenizer(folder: Path) -> None:
    """Write the tokenizer of the tiny model into a family's folder, with the generic tokenizer class."""
    tiny._tokenizer().save(str(folder / "tokenizer.json"))
    described = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]", "sep_token": "[SEP]"}
    described |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(described))


def tokenizer_of(folder: Path, family: str, vocab_size: int):
    """Read the tokenizer of a folder without a `config.json`."""
    return tokenizer.read(folder, TABLES[family].tokenizer, {"model_type": family}, vocab_size)


def inputs(name: str) -> dict[str, np.ndarray]:
    """Return three padded rows of `LENGTHS` tokens; where the family has two token types, all but the first ten tokens have type 1."""
    config, random = CONFIGS[name], np.random.RandomState(0)
    mask = (np.arange(max(LENGTHS)) < np.array(LENGTHS)[:, None]).astype(np.int64)
    tokens = random.randint(3, config["vocab_size"], mask.shape)
    arrays = {"input_ids": np.where(mask == 1, tokens, config.get("pad_token_id", 0)), "attention_mask": mask}
    return arrays | ({"token_type_ids": mask * (np.arange(max(LENGTHS)) > 9)} if config.get("type_vocab_size") == 2 else {})


AUTO = {None: "Model", "classifier": "ModelForSequenceClassification", "tagger": "ModelForTokenClassification"}
AUTO |= {"masked_lm": "ModelForMaskedLM", "lm": "ModelForCausalLM"}


def torch_model(name: str, kind: str | None, **changes):
    """Return the family's model in PyTorch's `transformers` with a head of `kind` and parameters from `tensor`."""
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(**CONFIGS[name] | {"num_labels": CLASSES} | changes)
    model = getattr(transformers, f"Auto{AUTO[kind]}").from_config(config).eval()
    with torch.no_grad():
        for parameter, value in model.named_parameters():
            value.copy_(torch.tensor(tensor(parameter, tuple(value.shape))))
    return model


def as_torch(arrays: dict[str, np.ndarray]) -> dict:
    """Return the arrays as PyTorch tensors."""
    import torch

    return {name: torch.tensor(array) for name, array in arrays.items()}
