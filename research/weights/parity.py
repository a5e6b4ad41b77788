"""Whether a model computes here what it computes in PyTorch: both are loaded from one folder and compared, layer by layer.

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

# Of mixed lengths; the last one is over the window that a layer of ModernBERT reads, and over the distances that DeBERTa knows exactly.
TEXTS = ("A film of rare, quiet beauty.", "Why?", "I bought this on a Tuesday and returned it on a Wednesday. " * 20)
LENGTHS = (9, 1, 200)  # where there is no tokenizer
CLASSES = {"classifier": "SequenceClassification", "tagger": "TokenClassification", "masked_lm": "MaskedLM", "lm": "CausalLM"}


def main(_: list[str]) -> None:
    """Compares the model with itself in PyTorch; exit code 1 says that they differ by more than the tolerance."""
    if not _MODEL.value:
        raise InputError("--model=FOLDER is missing; try --model=minilm")
    if not check(_MODEL.value, _TOLERANCE.value):
        sys.exit(1)


def check(source: str, tolerance: float) -> bool:
    """Prints how far the two are from each other; whether that is within the tolerance everywhere. Raises InputError as `compare` does."""
    table = Table("", "max abs difference", "", title=f"{source}: ours and PyTorch's, float32")
    differences = compare(source)
    for what, difference in differences.items():
        table.add_row(what, f"{difference:.1e}", "" if difference <= tolerance else f"over {tolerance:g}")
    Console().print(table)
    return all(difference <= tolerance for difference in differences.values())  # a NaN is not


def compare(source: str) -> dict[str, float]:
    """What was compared (each stage, then the head's logits) -> the largest distance between ours and PyTorch's, over `TEXTS`.

    Ours reads all texts as one padded batch, PyTorch each alone. Raises InputError where either cannot load the model or compute it, or
    without PyTorch.
    """
    import jax

    from research import weights

    checkpoint = weights.open(source)
    model, params, tokenizer = weights.load(source, head=checkpoint.kind is not None)
    encoder = model.encoder if checkpoint.kind else model
    texts = _texts(encoder.config, tokenizer)
    wanted = _by_pytorch(checkpoint, texts)
    batch = weights.padded_batch(*(_padded(rows) for rows in zip(*texts, strict=True)))

    def ours(params):
        stages = encoder.apply({"params": params["encoder"]}, batch).stages
        return [*stages, model.apply({"params": params}, batch)] if checkpoint.kind else stages

    # By number, since layers that share their parameters share a name.
    names = ["embeddings", *(f"layer {i}" for i in range(1, len(encoder.stages))), *(["logits"] if checkpoint.kind else [])]
    differences = np.zeros(len(names))
    for *row, other in zip(*map(np.asarray, jax.jit(ours)(params)), wanted, strict=True):
        apart = [np.abs(mine[: len(theirs)] - theirs).max() for mine, theirs in zip(row, other, strict=True)]
        differences = np.maximum(differences, apart)
    return dict(zip(names, map(float, differences), strict=True))


def _by_pytorch(checkpoint: Any, texts: list[tuple[np.ndarray, ...]]) -> list[list[np.ndarray]]:
    """What PyTorch gives for each text. Raises InputError where it cannot load the model or compute it."""
    try:
        model = load_pytorch(checkpoint)
        return [_pytorch_gives(model, text) for text in texts]
    except InputError:
        raise
    except Exception as error:  # whatever PyTorch and transformers raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise InputError(f"{checkpoint.folder}: PyTorch's transformers cannot compute this model ({reason})") from error


def load_pytorch(checkpoint: Any) -> Any:
    """The model of PyTorch's `transformers` from the checkpoint's folder, in float32. Raises InputError where PyTorch is not installed."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise InputError("this compares with PyTorch, which is not installed here; pip install torch") from None
    import transformers

    auto = getattr(transformers, f"AutoModelFor{CLASSES[checkpoint.kind]}" if checkpoint.kind else "AutoModel")
    return auto.from_pretrained(checkpoint.folder, local_files_only=True, dtype=torch.float32).eval()


def _pytorch_gives(model: Any, text: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """The states [L, D] of all stages and, where the model has a head, its logits: [L, ...] or, of the whole text, [1, C]."""
    torch = importlib.import_module("torch")
    ids, mask, types = (torch.tensor(row)[None] for row in text)
    further = {"token_type_ids": types} if getattr(model.config, "type_vocab_size", 0) > 1 else {}
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, output_hidden_states=True, **further)
    states = [states[0].numpy() for states in out.hidden_states]
    return [*states, out.logits.numpy().reshape(-1, out.logits.shape[-1])] if "logits" in out else states


def _texts(config: Any, tokenizer: Any) -> list[tuple[np.ndarray, ...]]:
    """Token ids, a mask of ones and types of each text; the second half of a text is of type 1 where there are types."""
    if tokenizer is None:  # the first few ids may stand for padding, which some families do not count as positions
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
