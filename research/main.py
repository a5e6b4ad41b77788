"""Train, evaluate, use or export one model on one task.

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
    "config", None, "FILE.py[:WORDS] or RUN/config.json; --config.NAME=VALUE sets a field. Not needed to use the run in --workdir."
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; by default a folder in runs/ named after the config.")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict", "export", "plan", "embed"], "What to do.")
_INPUT = flags.DEFINE_string(
    "input",
    None,
    "For --mode=predict and embed: a .txt, .tsv or .jsonl file; - is standard input.\nFor --mode=evaluate: such a file with labels.",
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "For --mode=predict: a .jsonl, .csv or .tsv file (in .tsv, tabs and line breaks of a text become blanks); by default JSON lines on "
    "standard output.\nFor --mode=embed: a .npy file. For --mode=export: the new folder.",
)
_FORMAT = flags.DEFINE_enum(
    "format",
    None,
    ["huggingface", "peft", "sentence-transformers"],
    "For --mode=export: the whole model; the delta and head; the model with its pooling, the default where transformers lacks the pooling.",
)
_LIST = flags.DEFINE_enum("list", None, ["tasks", "models", "methods", "configs", "fields"], "Print the available choices and exit.")

USED_BY = {"input": ("predict", "evaluate", "embed"), "output": ("predict", "export", "embed"), "format": ("export",)}


def main(_: list[str]) -> None:
    """Run what `--mode` selects."""
    if _LIST.value:
        from research import listing

        print(listing.text(_LIST.value), end="")
        return
    cli.check_used(_MODE.value, USED_BY)
    from research.experiment import build, modes, workdir  # these import jax, so after the checks: --help and mistakes are instant

    config = build.resolve(_CONFIG.value, given=cli.given_fields())
    folder = Path(_WORKDIR.value) if _WORKDIR.value else cli.recorded_run(_MODE.value) or workdir.default(config)
    modes.do(_MODE.value, config, folder, source=_INPUT.value, output=_OUTPUT.value, form=_FORMAT.value)


if __name__ == "__main__":
    cli.run(main)
