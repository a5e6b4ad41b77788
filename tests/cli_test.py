"""Command line: every user error is one line that names the problem and the nearest right answer, and the lists are complete."""

import os
import subprocess
import sys

import pytest

from research import cli, listing
from research.adapt.methods import METHODS
from research.config import durations, fields, ranges, synonyms
from research.config.durations import UNITS
from research.data.augment import OPERATIONS
from research.data.batches import LAYOUTS
from research.data.encode import TRUNCATIONS
from research.data.loading import SOURCES
from research.errors import InputError
from research.parallel.layouts import MODES
from research.train.optimizer import OPTIMIZERS, SCHEDULES
from tests import runs

SMOKE = "--config=configs/imdb.py:smoke"


def refused(*flags: str) -> str:
    """Run a command with bad input, check that it prints one error line and exits with code 2, and return the line."""
    result = runs.main(*flags, check=False)
    assert result.returncode == 2 and result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.epochs=3", "'epochs' is not known; here it is 'total_epochs'"),
        ("--config.early_stopping=1", "here it is 'patience_epochs'"),
        ("--config.lr=1e-3", "here it is 'learning_rate'"),
        ("--config.per-device-train-batch-size=8", "here it is 'batch_size'"),
        ("--config.class_weights=1", "not weighted by class"),
        ("--config.wandb=1", "metrics.jsonl"),
        ("--config.qqqq=1", "--list=fields shows them all"),
        ("--config.task.metric=f1", "'task.metric' is not known; here it is 'metric'"),
        ("--config.model.name=x", "here it is 'weights.source'"),
        ("--config.method.lora.rank=3", "here it is 'lora.rank'"),
        ("--config.lora=3", "'lora' is a group; set one of lora.alpha, lora.dropout"),
        ("--lr=3", "--config.learning_rate="),
        ("--seed=3", "did you mean --config.seed="),
        ("--output_dir=x", "--workdir=DIR"),
        ("--config.seed=x", "config.seed=x"),
    ],
)
def test_a_name_from_another_library_is_answered_with_the_field(flag, words):
    assert words in refused(SMOKE, flag)
    assert words in refused(flag, SMOKE), "the order of flags does not matter"


def test_every_target_of_the_synonyms_is_a_field():
    known = set(fields.field_names(fields.base("custom", fields.words(""))))
    assert not set(synonyms.FIELDS) - known
    names = [name for words in (*synonyms.FIELDS.values(), *synonyms.ADVICE) for name in words.split()]
    assert len(names) == len(set(names)) and not set(names) & known


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--mode=train", "--input=x.txt"], "--input= is not used by --mode=train"),
        (["--mode=evaluate", "--output=x"], "--output= is not used by --mode=evaluate"),
        (["--mode=predict", "--format=peft"], "--format= is not used by --mode=predict; it is for --mode=export"),
        (["--mode=plan", "--input=x"], "--input="),
    ],
)
def test_a_flag_that_a_mode_does_not_use_is_an_error(flags, words):
    assert words in refused(SMOKE, *flags)


def test_every_list_is_complete_and_every_field_has_a_comment():
    output = {what: runs.main(f"--list={what}").stdout.splitlines() for what in listing.LISTS}
    first = {what: [line.split()[0] for line in lines] for what, lines in output.items()}
    assert first["methods"] == list(METHODS)
    assert "configs/imdb.py" in first["configs"] and "research/config/fields.py" not in first["configs"]
    assert {"minilm", "bilstm"} <= set(first["models"]) and {"imdb", "mrpc"} <= set(first["tasks"])
    assert first["fields"] == fields.field_names(fields.base("custom", fields.words("")))
    without = [name for name, _, comment in listing.fields() if not comment]
    assert not without, "a field without a comment in research/config/fields.py or research/config/options.py"


def test_choices_agree_with_the_modules_that_use_them():
    choices = {
        "truncation": TRUNCATIONS,
        "packing": LAYOUTS,
        "optimizer": OPTIMIZERS,
        "schedule": SCHEDULES,
        "parallel": MODES,
        "data.source": SOURCES,
        "data.augment": {"", *OPERATIONS},
    }
    assert {name: set(known) for name, known in ranges.CHOICES.items() if name != "precision"} == {k: set(v) for k, v in choices.items()}
    assert set(UNITS) == set(durations.UNITS)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("schedule", "warmup", "schedule='warmup' is not known"),
        ("optimizer", "lion", "optimizer='lion' is not known"),
        ("precision", "float16", "did you mean 'float32'|did you mean 'bfloat16'"),
        ("dropout", 2.0, "dropout=2.0 must be at least 0 and less than 1"),
        ("seed", -1, "seed=-1"),
        ("learning_rate", float("nan"), "learning_rate=nan"),
        ("learning_rate", float("inf"), "learning_rate=inf"),
        ("total_epochs", 0.0, "total_epochs=0 must be more than 0"),
        ("warmup_percent", -1.0, "warmup_percent=-1 must be at least 0"),
        ("data.dev_fraction", 1.0, "data.dev_fraction"),
    ],
)
def test_a_value_out_of_range_is_refused(field, value, words):
    c = fields.base("imdb", fields.words("demo"))
    c.learning_rate = 1e-3
    fields.check_ranges(c)
    with pytest.raises(InputError, match=words):
        fields.check_ranges(fields.override(c, {field: value}))


def test_an_error_in_a_config_file_is_one_line(tmp_path):
    (tmp_path / "mine.py").write_text("def get_config(arg=''):\n    return int('three')\n")
    assert "mine.py': ValueError: invalid literal" in refused(f"--config={tmp_path / 'mine.py'}")


def test_output_is_utf8_in_any_locale_and_a_closed_pipe_prints_nothing():
    code = """if True:
    from absl import flags
    from research import cli
    flags.DEFINE_string("config", "some", "a program without --list")
    def main(_):
        for i in range(100_000):
            print("\\N{GREEK SMALL LETTER ALPHA}", "x" * 100)
    cli.run(main)"""
    environment = {name: value for name, value in runs.environment().items() if name != "PYTHONUTF8"} | {"PYTHONIOENCODING": "latin-1"}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        assert program.stdout.readline().decode().startswith("\N{GREEK SMALL LETTER ALPHA} x")
        program.stdout.close()
        assert program.stderr.read() == b""
    assert program.returncode == cli.CLOSED_PIPE


def test_an_error_about_a_file_name_that_is_not_utf8_is_printed():
    assert "\\udcff" in refused(f"--config={os.fsdecode(bytes([255]))}.py")
