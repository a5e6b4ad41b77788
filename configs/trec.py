"""Question classification by the kind of answer, in six classes: TREC (Li and Roth 2002).

python -m research.main --config=configs/trec.py                      # BERT-base, TensorFlow Datasets
python -m research.main --config=configs/trec.py:model=minilm,data=files --config.data.path=FOLDER

Measured, test accuracy with pooling=pooler: MiniLM, 4 epochs, seeds 0, 1, 2: 0.966, 0.964, 0.968 (PyTorch: 0.966, 0.966).
"""

from research.config import fields


def get_config(arg: str = ""):
    """Return the config. Words: `model=`, `data=tfds|files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="bert-base", data="tfds")
    c = fields.base("trec", chosen)
    c.max_length = 64
    c.total_epochs = 4.0
    return fields.finish(c, chosen)
