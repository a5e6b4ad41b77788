"""Every command and every piece of code in the README and in the reference pages it links to works."""

import functools
import re
import shlex
import subprocess
import sys

import pytest

from tests import runs, structure_test

PAGES = [
    runs.ROOT / "README.md",
    *sorted(path for folder in ("configs", "launch", "research") for path in (runs.ROOT / folder).rglob("*.md")),
]
TEXTS = {str(path.relative_to(runs.ROOT)): path.read_text(encoding="utf8") for path in PAGES}
BLOCKS = [block for text in TEXTS.values() for block in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL)]
LINES = [line.split("  #")[0].strip() for kind, block in BLOCKS if kind == "bash" for line in block.splitlines()]
COMMANDS = list(dict.fromkeys(line for line in LINES if line.startswith("python -m research.") or "| python -m research." in line))
# In the text, beside measured numbers: whole ablations, which are planned and never trained here.
MEASURED = [line for text in TEXTS.values() for line in re.findall(r"`(python -m research\.ablation --config=[^`]+)`", text)]

# What launch/test.sh runs to the end; the other trainings and tables it plans, and .ci/run runs.
USUAL = ("trec.py:smoke", "--mode", "--list=", "--replay", ".published")
REAL = ("trec.py:smoke", "--mode=predict", ".published")  # in processes of their own
TRAINED = "python -m research.main --config=configs/imdb.py:demo"  # the training that stands for RUN
INPUTS = {"FILE.txt": "A fine film.\nDull.\n", "FILE.tsv": "text\tlabel\nA fine film.\tpos\nDull.\tneg\n"}


def smoky(command: str, workdir) -> str:
    """Return the command as a smoke run in `workdir`, where it is not about the trained run in there."""
    command = re.sub(r"(configs/[\w/]+\.py)(:[\w=,]+)?", lambda m: m[1] + (f"{m[2]},smoke" if m[2] else ":smoke"), command)
    command = command.replace("data=files", "data=demo").replace("--config.data.path=FOLDER", "").replace(",path=FOLDER", ",seeds=1")
    if "--workdir=RUN" in command:
        return command.replace("=RUN", f"={workdir}")
    return command if command.endswith(".published") or "--list=" in command else f"{command} --workdir={workdir}"


def run(command: str) -> str:
    """Return what a command prints on standard output, after it has ended without an error."""
    echo, _, program = command.rpartition(" | ")
    _, _, module, *flags = shlex.split(program)
    stdin = f"{shlex.split(echo)[1]}\n" if echo else ""
    if not any(word in command for word in REAL):
        return runs.main(*flags, module=module, stdin=stdin).stdout
    line = [sys.executable, "-m", module, *flags]
    done = subprocess.run(line, env=runs.environment(), cwd=runs.ROOT, input=stdin, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return a function from a training command to the workdir of its smoke run. Each command runs once."""

    @functools.cache
    def of(command: str):
        workdir = tmp_path_factory.mktemp("trained") / "run"
        run(smoky(command, workdir))
        return workdir

    return of


def test_the_launchers_are_what_the_readme_says():
    assert [line for line in LINES if line not in COMMANDS] == ["launch/local.sh", "launch/test.sh"]
    assert not [name for name, text in TEXTS.items() if "RESULT_" in text]
    assert "configs/imdb.py:demo" in (runs.ROOT / "launch" / "local.sh").read_text()


def test_the_readme_is_short_and_every_link_leads_to_a_file():
    assert len(TEXTS["README.md"].splitlines()) <= 200
    links = [(path, link) for path, text in zip(PAGES, TEXTS.values(), strict=True) for link in re.findall(r"\]\(([^)#]+)", text)]
    assert len(links) > 10 and not [(path, link) for path, link in links if not (path.parent / link).exists()]
    reached = {(path.parent / link).resolve() for path, link in links}
    assert set(PAGES) - reached == {runs.ROOT / "README.md"}


PLANNED = [command for command in COMMANDS if not any(word in command for word in USUAL)] + MEASURED


@pytest.mark.parametrize("command", PLANNED)
def test_a_command_would_run(command, tmp_path):
    main = "research.main" in command
    output = run(smoky(command, tmp_path / "run") + (" --mode=plan" if main else " --dry_run"))
    assert "predicted FLOPs" in output if main else " to do" in output


@pytest.mark.parametrize("command", [c if any(word in c for word in USUAL) else pytest.param(c, marks=pytest.mark.slow) for c in COMMANDS])
def test_a_command_runs(command, tmp_path, trained):
    workdir = tmp_path / "run"
    if "--workdir=RUN" in command:
        workdir = trained(TRAINED)
    elif "--mode=" in command and "plan" not in command:  # these use a trained model
        workdir = trained(re.sub(r" *--(mode|input|output|format)=\S+", "", command.split(" | ")[-1]))
    if "--replay=" in command:
        run(smoky(command.replace("--replay=RUN_ID", "--only=probe"), workdir))
        command = command.replace("RUN_ID", next(workdir.glob("*/result.json")).parent.name)
    for name, text in INPUTS.items():
        (tmp_path / name).write_text(text)
    smoke = re.sub(r"=(FILE\.\w+|FOLDER)", lambda match: f"={tmp_path / match[1]}", smoky(command, workdir))
    output = run(smoke)
    if match := re.search(r"--output=(\S+)", smoke):
        assert (tmp_path / match[1]).exists()
        output += (tmp_path / match[1]).read_text() if "--mode=predict" in command else ""
    written = "table.md" if "research.ablation" in command else "result.json"
    assert "--mode=plan" in command or "--list=" in command or command.endswith(".published") or (workdir / written).exists()
    assert bool(re.search('[",]prediction[",]', output)) == ("--mode=predict" in command)


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

    (code,) = [block for kind, block in BLOCKS if kind == "python" and "norms_only" in block]
    names = vars(freezing) | {"METHODS": {}, "Row": methods.Row}
    exec(code, names)
    monkeypatch.setitem(methods.METHODS, "norms_only", names["METHODS"]["norms_only"])
    model = runs.build_model(runs.config(method="norms_only"), ("a", "b"))
    assert len(code.splitlines()) <= 10
    assert all("/norm/" in name or name.startswith("head/") for name in model.plan.trained)
    assert any("/norm/" in name for name in model.plan.trained) and "head/classifier/kernel" in model.plan.trained


def test_the_section_on_adding_a_method_is_short():
    text = TEXTS["README.md"]
    section = text[text.index("**A method**") : text.index("**A model**")]
    assert len([line for line in section.splitlines() if line]) <= 10


def first_column(page: str) -> list[str]:
    """Return the names in code font in the first column of the tables of a page."""
    lines = [line for line in TEXTS[page].splitlines() if line.startswith("| `")]
    return [name for line in lines for name in re.findall(r"`([\w./-]+)`", line.split("|")[1])]


def test_the_tables_of_methods_models_files_and_ablations_are_complete():
    from research.adapt import methods
    from research.weights import hub

    names, files = first_column("research/adapt/README.md"), (runs.ROOT / "research" / "adapt").glob("*.py")
    assert sorted(name for name in names if not name.endswith(".py")) == sorted(methods.METHODS)
    assert {path.name for path in files} - {"__init__.py"} <= set(re.findall(r"\w+\.py", TEXTS["research/adapt/README.md"]))
    assert set(first_column("configs/ablations/methods.md")) <= set(methods.METHODS)
    models = TEXTS["research/weights/README.md"].partition("\n- **Files.**")[0]
    assert sorted(re.findall(r"`([a-z0-9-]+)`", models.partition("|---|")[2])) == sorted(hub.NAMED)
    for page in ("configs/README.md", "configs/ablations/README.md"):
        ready = {path.name for path in (runs.ROOT / page).parent.glob("*.py")} - {"__init__.py"}
        assert {name for name in first_column(page) if name.endswith(".py")} == ready


def test_the_map_has_every_room_in_the_order_of_imports():
    text = TEXTS["README.md"]
    lines = text[text.index("    research/\n") : text.index("    configs/")].splitlines()[1:]
    rooms = [line.split()[0].removesuffix("/").removesuffix(".py") for line in lines if line.startswith("      ") and line[6] != " "]
    assert rooms == [room for room in structure_test.ROOMS if room != "configs"]
    assert [name.removesuffix("/").removesuffix(".py") for name in first_column("research/README.md")] == rooms
