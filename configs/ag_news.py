"""Topic classification of news in four classes: AG News (Zhang et al. 2015).

python -m research.main --config=configs/ag_news.py                   # BERT-base, TensorFlow Datasets
python -m research.main --config=configs/ag_news.py:model=minilm,data=files --config.data.path=FOLDER
"""

from research.config import fields


def get_config(arg: str = ""):
    """Return the config. Words: `model=`, `data=tfds|files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="bert-base", data="tfds")
    c = fields.base("ag_news", chosen)
    c.max_length = 128
    c.base_learning_rate = 2e-5 if chosen["model"].startswith("bert") else 5e-5
    c.eval_epochs = 0.5
    return fields.finish(c, chosen)
