"""Configs: every one builds, every contract field is there, words and overrides say what is wrong."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from research.config import durations, fields
from research.errors import InputError

ROOT = Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "common", "options"))
CONTRACT = """seed task method model weights.source weights.sha256 data.source data.path data.train_examples data.eval_examples max_length
batch_size base_learning_rate learning_rate pooling freeze schedule total_steps total_epochs total_examples warmup_percent
warmup_steps weight_decay clip_norm dropout precision packing parallel eval_steps eval_epochs checkpoint_steps
checkpoint_epochs phase_steps phase_epochs phase_percent top_layers unfreeze_layers llrd_decay discriminative_factor
lora.rank lora.alpha lora.targets lora.dropout truncation truncation_head bias_correction
data.seed data.augment data.augment_rate data.augment_copies""".split()
EXAMPLES = {str: "word", int: "3", float: "0.5", bool: "False", type(None): "2"}


def config(name="imdb", arg=""):
    return importlib.import_module(f"configs.{name}").get_config(arg)


def base():
    return fields.base("imdb", fields.words(""))


def from_flags(*argv):
    known = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=known)
    with pytest.MonkeyPatch.context() as patch:  # the overrides are looked for in the program's own arguments
        patch.setattr(sys, "argv", ["prog", *argv])
        known(sys.argv)
    return known["config"]


def test_there_are_configs():
    assert {"imdb", "sst2", "trec", "ag_news", "mrpc"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("arg", ["", "smoke", "demo", "model=minilm,data=files,method=linear_probe", "smoke,demo,method=top_k"])
def test_every_config_builds_with_one_unit_for_each_duration(name, arg):
    c = config(name, arg)
    assert set(fields.field_names(c)) == set(fields.field_names(base()))
    assert c.task == {"tagging": "custom_tags"}.get(name, name)
    for duration in durations.DURATIONS:
        durations.steps(c, duration, batch_size=c.batch_size, epoch_steps=10, total=30)
    if "smoke" in arg:
        assert (c.model, c.data.source, c.total_steps, c.total_epochs) == ("tiny", "demo", 2, None)
    else:
        assert c.total_steps is None and c.total_epochs > 0
    assert c.method == {"method": arg.rpartition("method=")[2]}.get("method" if "method=" in arg else "", "full")


@pytest.mark.parametrize("field", CONTRACT)
def test_every_contract_field_can_be_set_from_the_command_line(field):
    before = from_flags("--config=configs/imdb.py:demo").value
    owner, _, last = field.rpartition(".")
    value = (before[owner] if owner else before)[last]
    after = from_flags("--config=configs/imdb.py:demo", f"--config.{field}={EXAMPLES[type(value)]}").value
    changed = (after[owner] if owner else after)[last]
    assert str(changed) == EXAMPLES[type(value)] or float(changed) == float(EXAMPLES[type(value)])
    assert changed != value


def test_a_field_that_is_not_there_cannot_be_set_from_the_command_line():
    with pytest.raises((AttributeError, flags.Error)):
        from_flags("--config=configs/imdb.py", "--config.lerning_rate=1")


def test_importing_configs_imports_no_jax():
    code = f"import sys, {', '.join(f'configs.{name}' for name in NAMES)}; configs.imdb.get_config('smoke'); print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    loaded = subprocess.run([sys.executable, "-c", f"import jax; {code}"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "True"


def test_words_are_read_and_demo_and_smoke_are_short_for_more():
    assert fields.words("model=minilm,demo", model="bert-base", data="tfds") == {
        "data": "demo",
        "model": "minilm",
        "method": "full",
        "smoke": "",
    }
    assert fields.words("smoke")["smoke"] and not fields.words("")["smoke"]


@pytest.mark.parametrize(
    ("arg", "hint"),
    [
        ("smok", "did you mean 'smoke'"),
        ("dem", "did you mean 'demo'"),
        ("modle=minilm", "did you mean 'model=...'"),
        ("model", "did you mean 'model=...'"),
        ("model=", "did you mean 'model=...'"),
    ],
)
def test_an_unknown_word_is_an_error_with_the_nearest_and_all_that_are_known(arg, hint):
    with pytest.raises(InputError) as caught:
        fields.words(f"method=full,{arg}", model="tiny")
    message = str(caught.value)
    assert repr(arg) in message and hint in message and "\n" not in message
    for known in ("smoke", "demo", "model=...", "data=...", "method=..."):
        assert known in message.partition("known: ")[2]


def test_an_override_displaces_the_unit_that_a_duration_had():
    c = fields.override(base(), {"total_steps": 5, "warmup_steps": 0})
    assert (c.total_steps, c.total_epochs) == (5, None)
    assert (c.warmup_steps, c.warmup_percent) == (0, None)
    assert (c.eval_epochs, c.checkpoint_epochs, c.log_steps) == (1.0, 1.0, 10)


def test_two_units_given_for_one_duration_are_an_error():
    with pytest.raises(InputError, match="total_steps and total_epochs are two units"):
        fields.override(base(), {"total_steps": 5, "total_epochs": 1.0})
    c = base()
    with pytest.raises(InputError, match="warmup_steps and warmup_percent"):
        durations.resolve_units(c, ["warmup_steps", "warmup_percent", "total_steps"])


def test_settling_clears_only_the_units_that_were_not_given():
    flag = from_flags("--config=configs/imdb.py", "--config.total_steps=7", "--config.data.train_examples=9")
    c = flag.value
    durations.resolve_units(c, config_flags.get_override_values(flag))
    assert (c.total_steps, c.total_epochs, c.warmup_percent, c.data.train_examples) == (7, None, 10.0, 9)


def test_overriding_a_field_that_is_not_there_is_an_error_that_names_the_nearest():
    for wrong, hint in (("lerning_rate", "learning_rate"), ("data.pth", "data.path"), ("wieghts.source", "weights.source")):
        with pytest.raises(InputError, match=f"did you mean '{hint}'"):
            fields.override(base(), {wrong: 1})
