"""Every command and every piece of code in the README does what it says."""

import re
import shlex
import subprocess
import sys

import pytest

from tests import runs

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (runs.ROOT / "README.md").read_text(), re.DOTALL)
LINES = [line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python -m research.") or "| python -m research." in line]


def smoky(command: str, workdir) -> str:
    """The same command as a smoke run in a workdir of its own."""
    command = re.sub(r"(configs/[\w/]+\.py)(:[\w=,]+)?", lambda m: m[1] + (f"{m[2]},smoke" if m[2] else ":smoke"), command)
    command = command.replace("data=files", "data=demo").replace("--config.data.path=FOLDER", "").replace(",path=FOLDER", ",seeds=1")
    command = command.replace("--output=FOLDER", f"--output={workdir}-out").replace("python -m", f"{shlex.quote(sys.executable)} -m")
    return command if command.endswith(".ledger") else f"{command} --workdir={workdir}"


def test_the_launchers_are_what_the_readme_says():
    assert [line for line in LINES if line not in COMMANDS] == ["launch/local.sh", "launch/test.sh"]
    assert "RESULT_" not in (runs.ROOT / "README.md").read_text()
    assert "configs/imdb.py:demo" in (runs.ROOT / "launch" / "local.sh").read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs(command, tmp_path):
    if "--mode=" in command and "plan" not in command:  # these use a trained model
        train = re.sub(r"--(mode|input|output|format)=\S+", "", command.split("|")[-1])
        subprocess.run(smoky(train, tmp_path / "run"), shell=True, env=runs.environment(), cwd=runs.ROOT, check=True, capture_output=True)
    if "--replay=" in command:
        first = command.replace("--replay=RUN_ID", "--only=probe")
        subprocess.run(smoky(first, tmp_path / "run"), shell=True, env=runs.environment(), cwd=runs.ROOT, check=True, capture_output=True)
        command = command.replace("RUN_ID", next((tmp_path / "run").glob("*/result.json")).parent.name)
    done = subprocess.run(
        smoky(command, tmp_path / "run"), shell=True, env=runs.environment(), cwd=runs.ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    written = "table.md" if "research.ablation" in command else "result.json"
    assert "--mode" in command or command.endswith(".ledger") or (tmp_path / "run" / written).exists()


def test_an_array_job_takes_its_share():
    command = ["launch/slurm.sh", "--config=configs/ablations/freezing.py:smoke,seeds=1", "--dry_run"]
    shares = []
    for task in range(2):
        array = {"SLURM_ARRAY_TASK_ID": str(task), "SLURM_ARRAY_TASK_COUNT": "2", "PYTHON": sys.executable}
        done = subprocess.run(command, env=runs.environment() | array, cwd=runs.ROOT, capture_output=True, text=True, check=True)
        shares.append(done.stdout.splitlines())
    assert [len(share) for share in shares] == [2, 2] and not set(shares[0]) & set(shares[1])
    done = subprocess.run(command, env=runs.environment(), cwd=runs.ROOT, capture_output=True, text=True)
    assert done.returncode and "submit this with sbatch --array" in done.stderr


def test_the_code_runs():
    (library,) = [block for kind, block in BLOCKS if kind == "python" and "weights.load" in block]
    done = subprocess.run([sys.executable, "-c", library], env=runs.environment(), cwd=runs.ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "(2, 6, 384) 7", done.stderr


def test_the_method_of_the_readme_is_ten_lines_and_works(monkeypatch):
    from research import experiment
    from research.adapt import freezing, methods

    (code,) = [block for kind, block in BLOCKS if kind == "python" and "norms_only" in block]
    there = dict(vars(freezing))
    exec(code, there)
    monkeypatch.setitem(methods.METHODS, "norms_only", there["norms_only"])
    model = experiment.build_model(runs.config(method="norms_only"), ("a", "b"))
    assert len(code.splitlines()) <= 10
    assert all("/norm/" in name or name.startswith("head/") for name in model.plan.trained)
    assert any("/norm/" in name for name in model.plan.trained) and "head/classifier/kernel" in model.plan.trained


def test_the_section_on_adding_a_method_is_short():
    text = (runs.ROOT / "README.md").read_text()
    section = text[text.index("**A method**:") : text.index("**A model**:")]
    assert len([line for line in section.splitlines() if line]) <= 10


def test_the_table_of_methods_is_whole_and_the_map_names_every_file():
    from research.adapt import methods

    text = (runs.ROOT / "README.md").read_text()
    section = text[text.index("## Methods") : text.index("## Results")]
    named = [name for line in section.splitlines() if line.startswith("| `") for name in re.findall(r"`(\w+)`", line.split("|")[1])]
    assert sorted(named) == sorted(methods.METHODS)
    map_ = text[text.index("## The map") : text.index("As a library")]
    missing = {path.name for path in (runs.ROOT / "research" / "adapt").glob("*.py")} - {"__init__.py"} - set(re.findall(r"\w+\.py", map_))
    assert not missing
