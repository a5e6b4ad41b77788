"""Whether two sentences say the same: MRPC (Dolan and Brockett 2005), a task of pairs.

python -m research.main --config=configs/mrpc.py                      # BERT-base, TensorFlow Datasets
python -m research.main --config=configs/mrpc.py:model=minilm,data=files --config.data.path=FOLDER
"""

from configs import common


def get_config(arg: str = ""):
    """Words: `model=`, `data=tfds|files|demo`, `method=`, `demo`, `smoke`."""
    chosen = common.words(arg, model="bert-base", data="tfds")
    c = common.base("mrpc", chosen)
    return common.finish(c, chosen)
