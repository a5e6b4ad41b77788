"""Sentiment classification of sentences: SST-2 (Socher et al. 2013).

python -m research.main --config=configs/sst2.py                      # BERT-base, GLUE's phrases from TensorFlow Datasets
python -m research.main --config=configs/sst2.py:model=minilm,data=files --config.data.path=FOLDER

Measured, test accuracy with pooling=pooler: MiniLM on the 6,920 sentences, 3 epochs, seeds 0, 1, 2: 0.889, 0.883, 0.891
(PyTorch: 0.888, 0.883).
"""

from research.config import fields


def get_config(arg: str = ""):
    """Return the config. Words: `model=`, `data=tfds|files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="bert-base", data="tfds")
    c = fields.base("sst2", chosen)
    c.max_length = 64
    c.base_learning_rate = 2e-5 if chosen["model"].startswith("bert") else 5e-5
    return fields.finish(c, chosen)
