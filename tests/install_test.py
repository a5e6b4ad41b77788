"""The project is installable, and ready configs are found from any folder."""

import tomllib
from importlib import metadata

import configs
from research import cli
from tests import runs


def test_a_ready_config_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ready = f"{runs.ROOT}/configs/imdb.py"
    assert cli.located("--config=configs/imdb.py:smoke,method=lora") == f"--config={ready}:smoke,method=lora"
    assert cli.located("configs/imdb.py") == ready  # after `--config` as an argument of its own
    for unchanged in ("--config=configs/imbd.py", "--config=imdb.py", "--config.data.path=configs/imdb.py", "--mode=plan", "-"):
        assert cli.located(unchanged) == unchanged


def test_a_config_under_the_current_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "imdb.py").touch()
    assert cli.located("--config=configs/imdb.py:smoke") == "--config=configs/imdb.py:smoke"


def test_the_environment_has_the_project_with_its_requirements_and_every_package():
    wanted = {line.split("==")[0] for line in (runs.ROOT / "requirements.txt").read_text().splitlines()}
    assert {requirement.split("==")[0] for requirement in metadata.requires("research")} == wanted
    project = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["packages"]["find"]["include"] == ["research*", "configs*"]
    for folder in (path for top in ("research", "configs") for path in (runs.ROOT / top).rglob("*") if path.is_dir()):
        if any(folder.glob("*.py")):
            assert (folder / "__init__.py").is_file(), f"{folder} would not be installed"
    assert configs.__path__[0] == str(runs.ROOT / "configs")
