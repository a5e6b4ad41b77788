"""The main job: a pretrained model, a task, one command.

python -m research.main --config=configs/imdb.py:demo
python -m research.main --config=configs/sst2.py:model=minilm,data=files --config.data.path=FOLDER --config.seed=1
python -m research.main --mode=predict --workdir=RUN --input=reviews.txt --output=predictions.csv
python -m research.main --list=fields
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from research import cli

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE.py[:WORDS], or RUN/config.json; a field changes by --config.NAME=VALUE. Not needed to use the run in --workdir."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run's files go; by default a folder in runs/ named after the config.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict", "export", "plan"], "What to do.")
_INPUT = flags.DEFINE_string(
    "input", None, "For --mode=predict: a .txt, .tsv or .jsonl file; - reads standard input.\nFor --mode=evaluate: such a file with labels."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "For --mode=predict: a .jsonl, .csv or .tsv file (in .tsv, tabs and line ends of a text are blanks); by default JSON lines on "
    "standard output.\nFor --mode=export: the folder to make.",
)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    ["huggingface", "peft", "sentence-transformers"],
    "For --mode=export: the whole model; the delta and head; or, the default where transformers has no place for the pooling, the last.",
)
_LIST = flags.DEFINE_enum("list", None, ["tasks", "models", "methods", "configs", "fields"], "Print what can be chosen, and end.")

USED_BY = {"input": ("predict", "evaluate"), "output": ("predict", "export"), "format": ("export",)}


def main(_: list[str]) -> None:
    """Does what `--mode` says."""
    if _LIST.value:
        from research import listing

        print(listing.text(_LIST.value), end="")
        return
    cli.check_used(_MODE.value, USED_BY)
    from research.adapt import methods  # with jax and all the rest: after the flags, so that --help and mistakes are instant
    from research.experiment import modes, workdir

    methods.resolve(_CONFIG.value)
    run = cli.recorded_run() if _MODE.value in cli.OWN_CONFIG else None
    place = Path(_WORKDIR.value) if _WORKDIR.value else run or workdir.default(_CONFIG.value)
    modes.do(_MODE.value, _CONFIG.value, place, source=_INPUT.value, output=_OUTPUT.value, form=_FORMAT.value)


if __name__ == "__main__":
    cli.run(main)
