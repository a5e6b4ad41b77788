"""Your own texts: a folder with train.tsv, test.tsv and perhaps dev.tsv (validation, valid, val); the classes are the labels of train.

    python -m research.main --config=configs/custom.py --config.data.path=FOLDER
    python -m research.main --config=configs/custom.py:pairs=yes --config.data.path=FOLDER

The header is `text<TAB>label`, or `text_a<TAB>text_b<TAB>label` for pairs; .jsonl with the same fields will do as well.
"""

from research.config import fields


def get_config(arg: str = ""):
    """Words: `pairs=yes|no`, `model=`, `data=files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="minilm", data="files", pairs="no")
    c = fields.base("custom_pairs" if chosen["pairs"] == "yes" else "custom", chosen)
    return fields.finish(c, chosen)
