"""The model card of an exported model: its base model, method, training data and metrics."""

from collections.abc import Sequence
from typing import Any

# Which tokens of a longer text are kept, by the config's `truncation`. The exported tokenizer can keep the first or the last ones.
CUT = {"head": "", "tail": " (the last ones)", "head_tail": " (the first and the last ones, which no tokenizer does by itself)"}

# Python that prints the predicted classes of texts, for each library.
CODE = {
    "transformers": """from transformers import AutoModelForSequenceClassification, AutoTokenizer

model = AutoModelForSequenceClassification.from_pretrained({folder!r}).eval()
tokenizer = AutoTokenizer.from_pretrained({folder!r})
inputs = tokenizer({texts}, truncation=True, max_length={length}, padding=True, return_tensors="pt")
print([model.config.id2label[i] for i in model(**inputs).logits.argmax(-1).tolist()])""",
    "peft": """from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

labels = {labels}
base = AutoModelForSequenceClassification.from_pretrained({base!r}, num_labels=len(labels))
model = PeftModel.from_pretrained(base, {folder!r}).eval()
tokenizer = AutoTokenizer.from_pretrained({folder!r})
inputs = tokenizer({texts}, truncation=True, max_length={length}, padding=True, return_tensors="pt")
print([labels[i] for i in model(**inputs).logits.argmax(-1).tolist()])""",
    "sentence-transformers": """from sentence_transformers import SentenceTransformer

model = SentenceTransformer({folder!r})
labels = {labels}
print([labels[i] for i in model.encode({pairs}).argmax(-1).tolist()])  # encode gives the logits""",
}
TAGGER = "transformers, tokens"  # key of `CODE` for a head that reads every token
CODE[TAGGER] = """from transformers import pipeline

tagger = pipeline("token-classification", {folder!r}, aggregation_strategy="first")
print(tagger({texts}))"""
EXAMPLES = (["A text.", "Another text."], ["What stands beside it.", "And beside this one."])


def code(library: str, labels: Sequence[str], base: str, folder: str, texts: int, max_length: int) -> str:
    """Return Python that loads `folder` with `library` and prints the predicted classes of two examples of `texts` texts each."""
    columns, pairs = ", ".join(map(repr, EXAMPLES[:texts])), list(zip(*EXAMPLES, strict=True)) if texts > 1 else EXAMPLES[0]
    return CODE[library].format(folder=folder, texts=columns, pairs=pairs, labels=list(labels), base=base, length=max_length)


def card(result: dict[str, Any], labels: Sequence[str], base: str, command: str, library: str, folder: str, texts: int) -> str:
    """Return the card: Markdown with the front matter that the Hugging Face hub reads.

    `result` is the content of a run's `result.json`, `base` the pretrained model, `command` the command that exported the model. The
    other arguments are those of `code`.
    """
    config, params = result["config"], result["params"]
    task, metric, metrics = config["task"], result["selection"]["metric"], result["metrics"]
    positive = result["selection"].get("positive")
    class_note = f" Precision, recall and f1 are those of the class {positive}." if positive is not None else ""
    rows = "".join(f"| {split} | {' | '.join(f'{value[name]:.4f}' for name in _columns(metrics))} |\n" for split, value in metrics.items())
    kind = "token-classification" if library == TAGGER else "text-classification"
    trained = f"{params['trainable']:,} of {params['total']:,} parameters trained"
    which = CUT[config["truncation"]]
    return f"""---
base_model: {base}
library_name: {library.partition(",")[0]}
pipeline_tag: {kind}
model-index:
- name: {task}-{config["method"]}
  results:
  - task:
      type: {kind}
    dataset:
      name: {task}
      type: {task}
    metrics:
    - type: {metric}
      value: {metrics["test"][metric]:.4f}
---

# {base} for {task}

Trained with `method={config["method"]}` (seed {result["seed"]}): {trained}. Data: {result["data"]["source"]},
{result["data"]["sizes"]["train"]:,} training examples, at most {config["max_length"]} tokens each{which}. Classes: {", ".join(labels)}.

| split | {" | ".join(_columns(metrics))} |
|---|{"---|" * len(_columns(metrics))}
{rows}
The step was chosen on {result["selection"]["split"]} by {metric}; test was used once.{class_note} One seed says little about a method: the
difference between two cards like this one can be chance.

```python
{code(library, labels, base, folder, texts, config["max_length"])}
```

Made by `{command}`. sha256 of the run's parameters, as its `result.json` has it: `{params["sha256"]}`.
"""


def _columns(metrics: dict[str, dict[str, float]]) -> list[str]:
    return list(next(iter(metrics.values())))
