"""Progress lines of a run, and reading of metrics.jsonl and JSON files that may be damaged."""

import io
import json
import re

import pytest
from rich.console import Console

from research import storage
from research.errors import InputError
from research.tasks.classification import Classification
from research.tracking import writer

TASK = Classification("tone", metric="f1", labels=("calm", "angry"))


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=160, highlight=False, soft_wrap=True, markup=False, color_system=None)


def printed(folder, terminal: bool) -> list[str]:
    """Return the lines of a run of 30 steps, logged every 10 and evaluated twice. The first step, which compiles, is not timed."""
    output = console(terminal)
    with writer.Telemetry(folder, 30, console=output) as telemetry:
        for step in (10, 20, 30):
            counts = {"steps": step - 1, "examples": 32 * (step - 1), "busy_s": 4.0 * (step - 1)}
            telemetry.log("training", step, {"train/loss": 1 / step, "learning_rate": 5e-5 / step}, counts)
        telemetry.judge(15, {"loss": 0.5, "accuracy": 0.75, "f1": 0.7}, TASK, True, None, None)
        telemetry.judge(30, {"loss": 0.5, "accuracy": 0.75, "f1": 0.6}, TASK, False, 0.7, 15)
    return re.sub(r"\x1b\[[\d;?]*[A-Za-z]|\r", "", output.file.getvalue()).splitlines()


DEV = [
    "dev after step 15: f1 of 'angry' 0.7000, loss 0.5000, accuracy 0.7500; the best so far",
    "dev after step 30: f1 of 'angry' 0.6000, loss 0.5000, accuracy 0.7500; not better than 0.7000 at step 15",
]


def test_without_a_terminal_there_is_a_line_for_each_log_interval_and_each_evaluation(tmp_path):
    assert printed(tmp_path, terminal=False) == [
        "training: step 10 of 30: loss 0.1000, learning rate 5.00e-06, 8.0 examples/s, about 80 s left",
        "training: step 20 of 30: loss 0.0500, learning rate 2.50e-06, 8.0 examples/s, about 40 s left",
        "training: step 30 of 30: loss 0.0333, learning rate 1.67e-06, 8.0 examples/s, about 0 s left",
        *DEV,
    ]


def test_a_terminal_has_a_bar_instead_and_the_same_dev_scores(tmp_path):
    lines = printed(tmp_path, terminal=True)
    assert [dev for dev in DEV if any(dev in line for line in lines)] == DEV
    assert "examples/s" not in "".join(lines) and any("trained" in line for line in lines)


def test_a_step_that_compiles_has_no_throughput(tmp_path):
    output = console(terminal=False)
    with writer.Telemetry(tmp_path, 2, console=output) as telemetry:
        telemetry.log("training", 1, {"train/loss": 1.0, "learning_rate": 0.1}, {"steps": 0, "examples": 0, "busy_s": 0.0})
    assert output.file.getvalue() == "training: step 1 of 2: loss 1.0000, learning rate 1.00e-01\n"


def test_a_quiet_console_prints_nothing(tmp_path):
    output = Console(file=io.StringIO(), quiet=True)
    with writer.Telemetry(tmp_path, 2, console=output) as telemetry:
        telemetry.judge(1, {"loss": 1.0, "accuracy": 1.0, "f1": 1.0}, TASK, True, None, None)
    assert output.file.getvalue() == ""


LINES = b"".join(json.dumps({"step": step, "train/loss": 1.0}).encode() + b"\n" for step in (1, 2, 3))


@pytest.mark.parametrize("tail", [b"", b'{"step": 4, "tra', bytes(64)], ids=["intact", "cut short", "zeros"])
def test_an_incomplete_last_line_is_ignored(tmp_path, tail):
    (tmp_path / "metrics.jsonl").write_bytes(LINES + tail)
    assert [line["step"] for line in writer.read_metrics(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("line", [b'{"step": 2, "tra', bytes(30), b"[1]", b"3", b'{"loss": 1}', b'{"step": "2"}', b"\xff", b"[" * 100_000])
def test_other_damage_is_one_error_line_with_the_file_and_the_line(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_bytes(LINES[: len(LINES) // 3] + line + b"\n" + LINES)
    with pytest.raises(InputError) as error:
        writer.read_metrics(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'metrics.jsonl'}, line 2: damaged") and "\n" not in str(error.value)


@pytest.mark.parametrize("text", [b"", b'{"status": "fini', bytes(200), b"[]", b"null", b'{"other": 1}', b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_json_file_is_one_error_line_that_names_it(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_bytes(text)
    with pytest.raises(InputError) as error:
        storage.read_json(path, "status")
    assert str(error.value).startswith(f"{path} is damaged (") and "\n" not in str(error.value)
    storage.write_json(path, {"status": "finished"})
    assert storage.read_json(path, "status") == {"status": "finished"}
