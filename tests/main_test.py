"""Test the command line: its output, its exit code, and that errors come quickly."""

import json
import time

import pytest

from tests import runs


def error_line(*flags: str) -> str:
    """Return the error line of a command with bad input. Check that it is one line, with exit code 2 and no traceback."""
    done = runs.main(*flags, check=False)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0]


def test_help_is_quick_and_shows_the_flags():
    began = time.perf_counter()
    done = runs.start("--help")
    assert time.perf_counter() - began < 2
    for flag in ("--config", "--workdir", "--mode", "--input", "--output"):
        assert flag in done.stdout


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--config=configs/imdb.py:smoke", "--config.learning_rat=1"], ["'learning_rat'", "'learning_rate'"]),
        (["--config=configs/imdb.py:smoke", "--config.data.pth=x"], ["'data.pth'", "'data.path'"]),
        (["--config=configs/imdb.py:smok"], ["'smok'", "'smoke'"]),
        (["--config=configs/imdb.py:modle=tiny"], ["'modle=tiny'", "model=..."]),
        (["--config=configs/imdb.py:smoke", "--config.total_steps=3", "--config.total_epochs=1"], ["total_steps", "total_epochs"]),
        (["--config=configs/imdb.py:smoke", "--config.seed=abc"], ["config.seed=abc"]),
        (["--config=configs/imdb.py:smoke", "--mode=trian"], ["mode", "train"]),
        (["--config=configs/nothing.py"], ["configs/nothing.py"]),
        (["--config=configs/imdb.py:smoke", "demo"], ["'demo'"]),
        ([], ["--config=FILE.py"]),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_that_names_it(flags, words):
    line = error_line(*flags)
    assert all(word in line for word in words), line


def test_bad_input_found_later_is_one_line_too(tmp_path):
    line = error_line("--config=configs/sst2.py:smoke", "--config.data.source=files", f"--workdir={tmp_path / 'run'}")
    assert "--config.data.path" in line


def test_a_run_is_trained_then_evaluated_then_used(tmp_path):
    flags = ["--config=configs/imdb.py:smoke", f"--workdir={tmp_path / 'run'}"]
    trained = runs.start(*flags)
    assert "trains 25,922 of 25,922 parameters" in trained.stderr
    assert "PyTorch" not in trained.stderr
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    for split, scores in json.loads(runs.main(*flags, "--mode=evaluate").stdout).items():
        assert scores == pytest.approx(result["metrics"][split], abs=1e-5)
    assert "finished already" in runs.main(*flags).stderr

    rows = [
        json.loads(line)
        for line in runs.start(*flags, "--mode=predict", "--input=-", stdin="a good film\na bad film\n").stdout.splitlines()
    ]
    assert [row["id"] for row in rows] == ["0", "1"]
    assert all(row["prediction"] in row["probabilities"] for row in rows)
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in rows)


def test_the_plan_is_printed_without_training(tmp_path):
    flags = ["--config=configs/imdb.py:smoke,method=linear_probe", f"--workdir={tmp_path / 'run'}", "--mode=plan"]
    table = runs.main(*flags).stdout
    assert "frozen" in table and "never" in table and "trains 66 of" in table
    assert not (tmp_path / "run").exists()
