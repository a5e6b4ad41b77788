"""Classification of your texts, from a folder with train.tsv, test.tsv and optionally dev.tsv (or validation, valid, val).

    python -m research.main --config=configs/custom.py --config.data.path=FOLDER
    python -m research.main --config=configs/custom.py:pairs=yes --config.data.path=FOLDER

The classes are the labels of train. The header is `text<TAB>label`, or `text_a<TAB>text_b<TAB>label` for pairs. Files in .jsonl with the
same fields also work.
"""

from research.config import fields


def get_config(arg: str = ""):
    """Return the config. Words: `pairs=yes|no`, `model=`, `data=files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="minilm", data="files", pairs="no")
    c = fields.base("custom_pairs" if chosen["pairs"] == "yes" else "custom", chosen)
    if chosen["model"] == "minilm":
        c.base_learning_rate = 1e-4  # better than 5e-5 by 3.7 points on dev (mean of three sets of 500 examples, 3 epochs)
    return fields.finish(c, chosen)
