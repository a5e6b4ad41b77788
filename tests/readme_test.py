"""Every command and every piece of code in the README does what it says."""

import functools
import re
import shlex
import subprocess
import sys

import pytest

from tests import runs

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (runs.ROOT / "README.md").read_text(), re.DOTALL)
LINES = [line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
COMMANDS = [line for line in LINES if line.startswith("python -m research.") or "| python -m research." in line]


# What launch/test.sh runs to the end; the other trainings and tables it plans, and .ci/run runs.
USUAL = ("trec.py:smoke", "--mode", "--only=", "--replay", ".published")
REAL = ("trec.py:smoke", "--mode=predict", ".published")  # in processes of their own


def smoky(command: str, workdir) -> str:
    """The same command as a smoke run in a workdir of its own."""
    command = re.sub(r"(configs/[\w/]+\.py)(:[\w=,]+)?", lambda m: m[1] + (f"{m[2]},smoke" if m[2] else ":smoke"), command)
    command = command.replace("data=files", "data=demo").replace("--config.data.path=FOLDER", "").replace(",path=FOLDER", ",seeds=1")
    command = command.replace("--output=FOLDER", f"--output={workdir}-out")
    return command if command.endswith(".published") else f"{command} --workdir={workdir}"


def run(command: str) -> str:
    """What a command of the README prints on standard output, after it came to its end."""
    said, _, program = command.rpartition(" | ")
    _, _, module, *flags = shlex.split(program)
    stdin = f"{shlex.split(said)[1]}\n" if said else ""
    if not any(word in command for word in REAL):
        return runs.main(*flags, module=module, stdin=stdin).stdout
    line = [sys.executable, "-m", module, *flags]
    done = subprocess.run(line, env=runs.environment(), cwd=runs.ROOT, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function from a training command to the workdir of its smoke run, each run once."""

    @functools.cache
    def of(command: str):
        workdir = tmp_path_factory.mktemp("trained") / "run"
        run(smoky(command, workdir))
        return workdir

    return of


def test_the_launchers_are_what_the_readme_says():
    assert [line for line in LINES if line not in COMMANDS] == ["launch/local.sh", "launch/test.sh"]
    assert "RESULT_" not in (runs.ROOT / "README.md").read_text()
    assert "configs/imdb.py:demo" in (runs.ROOT / "launch" / "local.sh").read_text()


@pytest.mark.parametrize("command", [command for command in COMMANDS if not any(word in command for word in USUAL)])
def test_a_command_would_run(command, tmp_path):
    main = "research.main" in command
    said = run(smoky(command, tmp_path / "run") + (" --mode=plan" if main else " --dry_run"))
    assert "predicted FLOPs" in said if main else len(said.splitlines()) > 2


@pytest.mark.parametrize("command", [c if any(word in c for word in USUAL) else pytest.param(c, marks=pytest.mark.slow) for c in COMMANDS])
def test_a_command_runs(command, tmp_path, trained):
    workdir = tmp_path / "run"
    if "--mode=" in command and "plan" not in command:  # these use a trained model
        workdir = trained(re.sub(r" *--(mode|input|output|format)=\S+", "", command.split(" | ")[-1]))
    if "--replay=" in command:
        run(smoky(command.replace("--replay=RUN_ID", "--only=probe"), workdir))
        command = command.replace("RUN_ID", next(workdir.glob("*/result.json")).parent.name)
    said = run(smoky(command, workdir))
    written = "table.md" if "research.ablation" in command else "result.json"
    assert "--mode=plan" in command or command.endswith(".published") or (workdir / written).exists()
    assert ('"prediction"' in said) == ("--mode=predict" in command)


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
    from research.adapt import freezing, methods
    from research.experiment import initialize

    (code,) = [block for kind, block in BLOCKS if kind == "python" and "norms_only" in block]
    there = dict(vars(freezing))
    exec(code, there)
    monkeypatch.setitem(methods.METHODS, "norms_only", there["norms_only"])
    model = initialize.build_model(runs.config(method="norms_only"), ("a", "b"))
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
