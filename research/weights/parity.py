"""Comparison of a model with PyTorch's `transformers`, layer by layer; both are loaded from the same folder.

python -m research.weights.parity --model=minilm
python -m research.weights.parity --model=FOLDER --tolerance=1e-4
"""

import importlib
import sys
from typing import Any

import numpy as np
from absl import flags
from rich.console import Console
from rich.table import Table

from research import cli
from research.errors import InputError

_MODEL = flags.DEFINE_string("model", None, "A folder, a name or a hub id, as for --config.weights.source.")
_TOLERANCE = flags.DEFINE_float("tolerance", 2e-5, "The largest difference that passes.", lower_bound=0.0)

# Texts of mixed lengths. The last one is longer than ModernBERT's local attention window and than the distances DeBERTa does not bucket.
TEXTS = ("A film of rare, quiet beauty.", "Why?", "I bought this on a Tuesday and returned it on a Wednesday. " * 20)
LENGTHS = (9, 1, 200)  # of the random texts that are used where there is no tokenizer
CLASSES = {"classifier": "SequenceClassification", "tagger": "TokenClassification", "masked_lm": "MaskedLM", "lm": "CausalLM"}


def main(_: list[str]) -> None:
    """Compare the model with PyTorch's; exit with code 1 where they differ by more than the tolerance."""
    if not _MODEL.value:
        raise InputError("--model=FOLDER is missing; try --model=minilm")
    if not check(_MODEL.value, _TOLERANCE.value):
        sys.exit(1)


def check(source: str, tolerance: float) -> bool:
    """Print the differences and return whether all are within the tolerance. Raises InputError as `compare` does."""
    table = Table("", "max abs difference", "", title=f"{source}: Flax and PyTorch, float32")
    differences = compare(source)
    for name, difference in differences.items():
        table.add_row(name, f"{difference:.1e}", "" if difference <= tolerance else f"over {tolerance:g}")
    Console().print(table)
    return all(difference <= tolerance for difference in differences.values())  # False for NaN


def compare(source: str) -> dict[str, float]:
    """Return the largest absolute difference between Flax and PyTorch over `TEXTS`, for each stage and for the logits of the head.

    Flax computes all texts as one padded batch, PyTorch each text alone. Raises InputError where either cannot load or compute the model,
    or where PyTorch is not installed.
    """
    import jax

    from research import weights

    checkpoint = weights.open(source)
    model, params, tokenizer = weights.load(source, head=checkpoint.kind is not None)
    encoder = model.encoder if checkpoint.kind else model
    texts = _texts(encoder.config, tokenizer)
    torch_outputs = _torch_outputs(checkpoint, texts)
    batch = weights.padded_batch(*(_padded(rows) for rows in zip(*texts, strict=True)))

    def flax_outputs(params):
        stages = encoder.apply({"params": params["encoder"]}, batch).stages
        return [*stages, model.apply({"params": params}, batch)] if checkpoint.kind else stages

    # Numbered, since layers that share parameters share a name.
    names = ["embeddings", *(f"layer {i}" for i in range(1, len(encoder.stages))), *(["logits"] if checkpoint.kind else [])]
    differences = np.zeros(len(names))
    for *flax_text, torch_text in zip(*map(np.asarray, jax.jit(flax_outputs)(params)), torch_outputs, strict=True):
        largest = [np.abs(flax[: len(torch)] - torch).max() for flax, torch in zip(flax_text, torch_text, strict=True)]
        differences = np.maximum(differences, largest)
    return dict(zip(names, map(float, differences), strict=True))


def _torch_outputs(checkpoint: Any, texts: list[tuple[np.ndarray, ...]]) -> list[list[np.ndarray]]:
    """Return PyTorch's states and logits of each text. Raises InputError where it cannot load or compute the model."""
    try:
        model = load_pytorch(checkpoint)
        return [_torch_output(model, text) for text in texts]
    except InputError:
        raise
    except Exception as error:  # PyTorch and transformers raise many types
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{checkpoint.folder}: PyTorch's transformers cannot compute this model ({reason})") from error


def load_pytorch(checkpoint: Any) -> Any:
    """Load the checkpoint's folder with PyTorch's `transformers`, in float32. Raises InputError where PyTorch is not installed."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise InputError("this compares with PyTorch, which is not installed here; pip install torch") from None
    import transformers

    auto = getattr(transformers, f"AutoModelFor{CLASSES[checkpoint.kind]}" if checkpoint.kind else "AutoModel")
    return auto.from_pretrained(checkpoint.folder, local_files_only=True, dtype=torch.float32).eval()


def _torch_output(model: Any, text: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Return the states [L, D] of all stages and, where the model has a head, its logits: [L, ...] per token or [1, C] per text."""
    torch = importlib.import_module("torch")
    ids, mask, types = (torch.tensor(row)[None] for row in text)
    type_input = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **type_input)
    states = [states[0].numpy() for states in out.hidden_states]
    return [*states, out.logits.numpy().reshape(-1, out.logits.shape[-1])] if "logits" in out else states


def _texts(config: Any, tokenizer: Any) -> list[tuple[np.ndarray, ...]]:
    """Return (token ids, attention mask of ones, token types) of each text; the second half has type 1 where the model has types."""
    if tokenizer is None:  # skip the first ids: one may be padding, which some families do not count as a position
        random = np.random.default_rng(0)
        rows = [random.integers(min(5, config.vocab_size - 1), config.vocab_size, length) for length in LENGTHS]
    else:
        rows = [np.array(tokenizer(text)["input_ids"]) for text in TEXTS]
    types = int(getattr(config, "type_vocab_size", 0) > 1)
    cut = [row[: config.max_length] for row in rows]
    return [(row, np.ones_like(row), types * (np.arange(len(row)) >= len(row) / 2)) for row in cut]


def _padded(rows: tuple[np.ndarray, ...]) -> np.ndarray:
    longest = max(map(len, rows))
    return np.stack([np.pad(row, (0, longest - len(row))) for row in rows])


if __name__ == "__main__":
    cli.run(main)
