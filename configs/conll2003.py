"""Named entity recognition in news: persons, organisations, locations, miscellaneous (CoNLL-2003, Tjong Kim Sang and De Meulder 2003).

python -m research.main --config=configs/conll2003.py:model=minilm,data=files --config.data.path=FOLDER

The folder has train.conll, test.conll and optionally dev.conll: the word in the first column and its tag in the last, a blank line after
each sentence.

Measured: MiniLM on 3,000 sentences, 2 epochs, seed 0: entity F1 0.856 on dev, 0.818 on test. On a third of test, the best valid sequences
have F1 0.814, the best tag of each word 0.797.
"""

from configs import tagging


def get_config(arg: str = ""):
    """Return the config. Words: `model=`, `data=files|demo`, `method=`, `demo`, `smoke`."""
    return tagging.get_config(arg, "conll2003")
