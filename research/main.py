"""The main job: a pretrained model, a task, one command.

python -m research.main --config=configs/imdb.py:demo
python -m research.main --config=configs/sst2.py:model=minilm,data=files --config.data.path=FOLDER --config.seed=1
python -m research.main --config=configs/imdb.py:demo --mode=predict --input=reviews.txt
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from research import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE.py[:WORDS]; a field changes by --config.NAME=VALUE.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run's files go; by default a folder in runs/ named after the config.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict", "export", "plan"], "What to do.")
_INPUT = flags.DEFINE_string("input", None, "For --mode=predict: a .txt, .tsv or .jsonl file; - reads lines from standard input.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "For --mode=predict: the file the JSON lines go to; by default standard output.\nFor --mode=export: the folder to make."
)
_FORMAT = flags.DEFINE_enum("format", "huggingface", ["huggingface", "peft"], "For --mode=export: the whole model, or the delta and head.")


def main(_: list[str]) -> None:
    """Does what `--mode` says."""
    from research import job, workdir  # with jax and all the rest: after the flags, so that --help and mistakes are instant
    from research.adapt import methods

    methods.settle(_CONFIG.value)
    place = Path(_WORKDIR.value) if _WORKDIR.value else workdir.default(_CONFIG.value)
    job.do(_MODE.value, _CONFIG.value, place, source=_INPUT.value, output=_OUTPUT.value, form=_FORMAT.value)


if __name__ == "__main__":
    cli.run(main)
