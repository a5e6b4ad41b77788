"""The workloads that are compared, and the little that both sides must agree on. Imports nothing heavy."""

import dataclasses
import gzip
import json
import random
import re
from pathlib import Path

BERT_BASE = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 30522}
MINILM = {"num_hidden_layers": 6, "hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536, "vocab_size": 30522}
TOY = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "vocab_size": 1000}
EPOCHS = 5  # the epochs whose order of examples is used in turn: round 6 sees the batches of round 1 again


@dataclasses.dataclass(frozen=True)
class Train:
    """Training steps (forward, backward, clip, AdamW) on one batch of random ids without padding, parameters random.

    `changes` are those of the Flax side's config, for comparing it with itself.
    """

    name: str
    shape: dict
    rows: int
    length: int
    steps: int
    changes: dict = dataclasses.field(default_factory=dict)
    unit: str = "s/step"


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Forward passes over the same random rows, to the logits: what evaluation costs."""

    name: str
    shape: dict
    rows: int
    length: int
    passes: int
    unit: str = "s/pass"


@dataclasses.dataclass(frozen=True)
class Epoch:
    """Fine-tuning real weights on real texts, tokenised beforehand: a steady epoch a round.

    `data` is a folder in --data and, once prepared, the folder with the drawn examples; `weights` is then the model's folder.
    """

    name: str
    config: str
    data: str
    classes: int
    max_length: int
    examples: int = 4000
    batch_size: int = 32
    model: str = "minilm"
    weights: str = ""
    unit: str = "examples/s"


@dataclasses.dataclass(frozen=True)
class Probe:
    """A full command in a separate process: a linear probe, from nothing to the test accuracy."""

    name: str
    config: str
    data: str
    classes: int
    max_length: int
    epochs: int
    batch_size: int = 32
    model: str = "minilm"
    weights: str = ""
    unit: str = "s"
    rounds: int = 1  # whatever --rounds says: it takes minutes


Workload = Train | Evaluate | Epoch | Probe
WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Train("train BERT-base 16x128", BERT_BASE, rows=16, length=128, steps=4),
        Train("train MiniLM 32x128", MINILM, rows=32, length=128, steps=6),
        Evaluate("evaluate BERT-base 16x128", BERT_BASE, rows=16, length=128, passes=8),
        Evaluate("evaluate MiniLM 32x128", MINILM, rows=32, length=128, passes=20),
        Epoch("epoch SST-2", "sst2", "sst2", classes=2, max_length=64),
        Epoch("epoch AG News", "ag_news", "ag_news", classes=4, max_length=128),
        Probe("linear probe SST-2, 10 epochs, whole command", "sst2", "sst2", classes=2, max_length=64, epochs=10),
    )
}


def describe(workload: Workload) -> str:
    """Return a line for `--help`."""
    numbers = [f"{name}={value}" for name, value in vars(workload).items() if isinstance(value, int)]
    return f"{workload.name}: {type(workload).__doc__.splitlines()[0].rstrip('.')} ({', '.join(numbers)})"


def chosen(pattern: str) -> list[Workload]:
    """Return the workloads whose name has `pattern` (a regular expression, capitals or not). Raise ValueError if there are none."""
    matches = [workload for name, workload in WORKLOADS.items() if re.search(pattern, name, re.IGNORECASE)]
    if not matches:
        raise ValueError(f"--only={pattern} matches no workload; they are: {'; '.join(WORKLOADS)}")
    return matches


def tiny(workload: Workload) -> Workload:
    """Return a workload of the same type that takes seconds: no measurement, but a test of the harness."""
    changes = {
        Train: {"shape": TOY, "rows": 2, "length": 16, "steps": 2},
        Evaluate: {"shape": TOY, "rows": 4, "length": 16, "passes": 2},
        Epoch: {"model": "tiny", "examples": 64, "batch_size": 8, "max_length": 32},
        Probe: {"model": "tiny", "epochs": 1, "max_length": 16, "batch_size": 32},
    }
    return dataclasses.replace(workload, **changes[type(workload)])


def dump(workload: Workload) -> str:
    """Return the workload as a line of JSON, the form in which a worker gets it."""
    return json.dumps({"kind": type(workload).__name__} | dataclasses.asdict(workload))


def load(line: str) -> Workload:
    """Return the workload of a line of JSON: the inverse of `dump`."""
    fields = json.loads(line)
    return {kind.__name__: kind for kind in (Train, Evaluate, Epoch, Probe)}[fields.pop("kind")](**fields)


def find(folder: Path, split: str) -> Path:
    """Return the file of a split. Raise ValueError if there is none."""
    for path in (folder / f"{split}.tsv", folder / f"{split}.tsv.gz"):
        if path.is_file():
            return path
    raise ValueError(f"{folder}: no {split}.tsv or {split}.tsv.gz; give the folder of the data sets by --data=FOLDER")


def lines(folder: Path, split: str) -> list[str]:
    """Return the lines of a split, the header first."""
    path = find(folder, split)
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode().removesuffix("\n").split("\n")


def read(folder: Path, split: str) -> list[tuple[str, str]]:
    """Return (text, label) of each row of a split."""
    header, *rows = (line.split("\t") for line in lines(folder, split))
    text, label = header.index("text"), header.index("label")
    return [(row[text], row[label]) for row in rows]


def draw(source: Path, target: Path, count: int) -> None:
    """Write to the new folder `target` the first `count` training examples of a seeded shuffle, and a few to pass for dev and test."""
    target.mkdir(parents=True)
    for split, size in (("train", count), ("dev", 64), ("test", 64)):
        header, *rows = lines(source, "train" if split == "train" else "test")
        random.Random(0).shuffle(rows)
        (target / f"{split}.tsv").write_text("\n".join([header, *rows[:size]]) + "\n", encoding="utf8", newline="\n")
