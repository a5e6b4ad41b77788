"""Sentiment classification of film reviews: IMDb (Maas et al. 2011), 25,000 + 25,000 reviews.

python -m research.main --config=configs/imdb.py:demo                 # built-in demo: a small model, synthetic reviews
python -m research.main --config=configs/imdb.py                      # BERT-base, IMDb from TensorFlow Datasets
python -m research.main --config=configs/imdb.py:model=minilm,data=files --config.data.path=FOLDER

Measured, test accuracy with pooling=pooler: MiniLM on all reviews (22,500 to train, 2,500 for dev, 25,000 to test), one epoch, 256
tokens, seed 0: 0.8977.
The demo, seeds 0 and 1: 0.936 and 0.964; from scratch 0.492 and 0.491.
"""

from research.config import fields


def get_config(arg: str = ""):
    """Return the config. Words: `model=`, `data=tfds|files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="bert-base", data="tfds")
    c = fields.base("imdb", chosen)
    c.max_length = 256
    c.base_learning_rate = 2e-5 if chosen["model"].startswith("bert") else 5e-5
    c.total_epochs = 3.0 if chosen["model"].startswith("bert") else 1.0
    c.eval_epochs = 0.5
    if chosen["data"] == "demo":
        c.update(max_length=64, base_learning_rate=1e-4, total_epochs=6.0, eval_epochs=1.0)
    return fields.finish(c, chosen)
