"""Test the structure of the source: which room imports which, imports that are forbidden, and the length of files."""

import ast
import re
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "research").rglob("*.py"))
PROGRAMS = {"research/main.py", "research/weights/parity.py"}  # beside those of research/ablation
# From the ground up: a room may import those before it.
ROOMS = "errors storage config params layers models parallel tasks data tracking adapt weights train".split()
ROOMS += "experiment listing cli ablation main configs".split()


def imports(source: str) -> set[str]:
    """Return the full names of all that a file imports, anywhere in it: `from a import b` counts as a.b."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(name: str) -> str:
    """Return the room of a full name: `research.data.batches.Batches` is in data; "" for other packages."""
    top, _, rest = name.partition(".")
    return top if top == "configs" else rest.partition(".")[0] if top == "research" else ""


def upward(file: str, source: str) -> list[str]:
    """Return the imports of a file from rooms that do not stand below its room."""
    if file == "research/__init__.py":
        return []
    here = ROOMS.index("configs" if file.startswith("configs/") else file.removeprefix("research/").removesuffix(".py").partition("/")[0])
    return sorted(name for name in imports(source) if (other := room(name)) and ROOMS.index(other) > here)


def test_imports_are_seen_wherever_they_stand():
    assert imports("import a.b\ndef f():\n    from c.d import e, g\n") == {"a.b", "c.d.e", "c.d.g"}
    assert room("research.data.batches") == "data" and room("configs.imdb") == "configs" and room("numpy") == ""
    assert upward("research/data/x.py", "from research.train import loop") == ["research.train.loop"]


def test_a_room_imports_only_what_stands_below_it():
    files = {str(file.relative_to(ROOT)): file.read_text() for file in FILES}
    strays = {file: names for file, source in files.items() if (names := upward(file, source))}
    assert strays == {"research/weights/parity.py": ["research.cli"]}


def test_every_room_is_in_the_list():
    there = {path.stem for path in (ROOT / "research").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert there - {"__init__"} | {"configs"} == set(ROOMS)


def test_data_and_models_know_nothing_of_each_other():
    for here, there in (("models", "data"), ("data", "models"), ("layers", "tasks"), ("params", "layers")):
        assert not {n for f in (ROOT / "research" / here).rglob("*.py") for n in imports(f.read_text()) if room(n) == there}


def test_nothing_needs_torch_or_tensorflow_or_what_only_tests_have():
    banned = {"torch", "tensorflow", "sklearn", "pytest", "hypothesis", "tests"}
    offenders = {f"{path.name}: {name}" for path in FILES for name in imports(path.read_text()) if name.partition(".")[0] in banned}
    assert not offenders


def test_only_the_statistics_of_ablations_need_scipy():
    users = {path.parent.name for path in FILES if any(name.partition(".")[0] == "scipy" for name in imports(path.read_text()))}
    assert users == {"report"}


def test_nothing_that_may_run_inside_a_program_decomposes_matrices_or_transforms_signals():
    """Check LAPACK and FFT calls, which inside a jitted program can deadlock on a CPU with one device. NumPy's are allowed."""
    calls = r"\b(?:jnp|lax|jsp|jax\.\w+|initializers)\.(?:linalg|fft|qr|svd|eigh?|cholesky|lu|orthogonal|delta_orthogonal)\b"
    assert re.search(calls, "nn.initializers.orthogonal()") and re.search(calls, "jnp.linalg.qr(x)")
    assert not {path.name: matches for path in FILES if (matches := re.findall(calls, path.read_text())) and path.name != "lstm.py"}
    assert re.findall(calls, (ROOT / "research" / "layers" / "lstm.py").read_text()) == ["jnp.linalg"], "named in its docstring alone"


def test_heavy_or_chatty_imports_wait_inside_functions():
    late = {"transformers", "tensorflow_datasets", "huggingface_hub", "matplotlib", "tensorboardX", "jinja2", "vl_convert"}
    for path in FILES:
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {name.partition(".")[0] for node in top for name in imports(ast.unparse(node))}
        assert not names & late, f"{path.name} imports {names & late} at its top"


def test_files_and_functions_stay_small():
    for path in (*FILES, *(ROOT / "configs").glob("*.py")):
        lines = path.read_text().count("\n")
        assert lines <= (59 if path.name == "main.py" else 250), f"{path} has {lines} lines"
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path}: {node.name} has {length} lines"


def test_only_programs_define_flags_and_nothing_is_called_utils():
    for path in FILES:
        assert path.stem not in ("utils", "helpers", "misc"), path
        if "DEFINE_" in path.read_text():
            assert str(path.relative_to(ROOT)) in PROGRAMS or path.parent.name == "ablation", path


def test_a_test_has_one_device_unless_it_is_marked_and_a_limit(pytestconfig):
    import jax

    assert jax.local_device_count() == 1 and pytestconfig.getini("timeout") and pytestconfig.getini("timeout_method") == "thread"


def test_the_tests_have_no_network():
    with socket.socket() as reached, pytest.raises(RuntimeError, match="network"):
        reached.connect(("192.0.2.1", 80))
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert client.fileno() >= 0


def test_models_have_never_heard_of_what_is_done_with_them():
    paths = [path for room in ("layers", "models") for path in sorted((ROOT / "research" / room).glob("*.py"))]
    mentions = {path.name: re.findall(r"(?i)freez|frozen(?!=True)|\blora\b|\bpack", path.read_text()) for path in paths}
    assert len(mentions) > 12 and not {name: words for name, words in mentions.items() if words}
    assert re.findall(
        r"(?i)freez|\bpack",
        (ROOT / "research" / "adapt" / "adapted_model.py").read_text() + (ROOT / "research" / "data" / "batches.py").read_text(),
    )
