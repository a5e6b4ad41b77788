"""Paraphrase detection in sentence pairs: MRPC (Dolan and Brockett 2005).

python -m research.main --config=configs/mrpc.py                      # BERT-base, TensorFlow Datasets
python -m research.main --config=configs/mrpc.py:model=minilm,data=files --config.data.path=FOLDER
"""

from research.config import fields


def get_config(arg: str = ""):
    """Return the config. Words: `model=`, `data=tfds|files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="bert-base", data="tfds")
    c = fields.base("mrpc", chosen)
    return fields.finish(c, chosen)
