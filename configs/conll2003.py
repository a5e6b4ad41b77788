"""Named entity recognition in news: persons, organisations, locations, miscellaneous (CoNLL-2003, Tjong Kim Sang and De Meulder 2003).

python -m research.main --config=configs/conll2003.py:model=minilm,data=files --config.data.path=FOLDER

The folder has train.conll, test.conll and optionally dev.conll: the word in the first column and its tag in the last, a blank line after
each sentence.
"""

from configs import tagging


def get_config(arg: str = ""):
    """Return the config. Words: `model=`, `data=files|demo`, `method=`, `demo`, `smoke`."""
    return tagging.get_config(arg, "conll2003")
