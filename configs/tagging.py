"""Tagging of words: named entities, chunks, parts of speech. The tags are those of train.

    python -m research.main --config=configs/tagging.py --config.data.path=FOLDER
    python -m research.main --config=configs/tagging.py:task=wnut17 --config.data.path=FOLDER

The folder has train.conll, test.conll and optionally dev.conll: the word in the first column and its tag in the last, a blank line after
each sentence. Files in .jsonl with lists `tokens` and `tags` also work.
"""

from research.config import fields


def get_config(arg: str = "", task: str = "custom_tags"):
    """Return the config. Words: `task=custom_tags|conll2003|wnut17|conll2000`, `model=`, `data=files|demo`, `method=`, `demo`, `smoke`."""
    chosen = fields.words(arg, model="minilm", data="files", task=task)
    c = fields.base(chosen["task"], chosen)
    if c.model == "minilm":
        c.base_learning_rate = 2e-4  # 5e-5 learns too slowly from a few thousand sentences
    return fields.finish(c, chosen)
