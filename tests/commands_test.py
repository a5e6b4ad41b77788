"""Every config, method, baseline and family by the command, from its flags to its result, on one device."""

import json

import pytest

from research.adapt import methods
from research.weights import hub
from tests import runs
from tests.weights import families

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def finished(workdir, *flags: str) -> dict:
    """Return the result of a training run after the command has ended."""
    runs.main(*flags, f"--workdir={workdir}")
    result = json.loads((workdir / "result.json").read_text())
    assert result["status"] == "finished" and len(result["environment"]["devices"]) == 1
    return result


@pytest.mark.parametrize("name", runs.CONFIGS)
def test_a_config_ends(name, tmp_path):
    assert finished(tmp_path, f"--config=configs/{name}.py:smoke")["config"]["total_steps"] == 2


@pytest.mark.parametrize("method", sorted(methods.METHODS))
def test_a_method_ends(method, tmp_path):
    assert finished(tmp_path, "--config=configs/trec.py:smoke", f"--config.method={method}")["config"]["method"] == method


@pytest.mark.parametrize("name", hub.BASELINES)
def test_a_baseline_ends(name, tmp_path):
    assert finished(tmp_path, f"--config=configs/sst2.py:smoke,model={name}")["config"]["model"] == name


@pytest.mark.parametrize("name", families.CONFIGS)
def test_a_family_ends(name, tmp_path):
    folder = families.save(tmp_path / "model", name, families.classifier(name))
    families.save_tokenizer(folder)
    finished(tmp_path / "run", "--config=configs/imdb.py:smoke", f"--config.weights.source={folder}")


def test_a_wrong_word_ends_in_one_line(tmp_path):
    done = runs.main("--config=configs/imdb.py:smoke", "--config.method=linear_prob", f"--workdir={tmp_path}", check=False)
    assert done.returncode == 2 and done.stderr.splitlines() == ["error: method 'linear_prob' is not known; did you mean 'linear_probe'?"]
