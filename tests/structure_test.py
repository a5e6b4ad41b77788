"""Which room may import which, what nothing may import, and how long a file may be: read from the source."""

import ast
import re
import socket
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "research").rglob("*.py"))
PROGRAMS = {"research/main.py", "research/weights/parity.py"}  # beside those of research/ablation
SMALL = {"research.precision", "research.later", "research.errors", "research.cache", "research.whole"}


def imports(source: str) -> set[str]:
    """Full names of all that a file imports, anywhere in it: `from a import b` counts as a.b."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def of_room(room: str) -> dict[str, set[str]]:
    """File -> what it imports, for a folder or a module of research."""
    found = {str(path.relative_to(ROOT)): imports(path.read_text()) for path in FILES if room in (path.parent.name, path.stem)}
    assert found, f"no such room: {room}"
    return found


def within(name: str, allowed: set[str]) -> bool:
    return any(name == other or name.startswith(other + ".") for other in allowed)


def strays(room: str, allowed: set[str]) -> list[str]:
    """Imports of our own packages that are not allowed. A program may read flags."""
    return sorted(
        f"{file}: {name}"
        for file, names in of_room(room).items()
        for name in names
        if within(name, {"research", "configs"}) and not within(name, allowed | ({"research.cli"} if file in PROGRAMS else set()))
    )


def test_imports_are_seen_wherever_they_stand():
    assert imports("import a.b\ndef f():\n    from c.d import e, g\n") == {"a.b", "c.d.e", "c.d.g"}
    assert within("research.errors.nearest", SMALL) and not within("research.errors_too", SMALL)
    assert strays("experiment", SMALL), "the wiring imports every room, so this must find some"


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("params", {"research.params", "research.errors"}),
        (
            "adapt",
            {
                "research.adapt",
                "research.params",
                "research.errors",
                "research.precision",
                "research.models.dropout",
                "research.models.readers",
            },
        ),
        ("models", {"research.models", *SMALL}),
        ("data", {"research.data", "research.tasks.task", *SMALL}),
        ("tasks", {"research.tasks", "research.models.heads", *SMALL}),
        ("weights", {"research.weights", "research.models", *SMALL}),
        ("optim", {"research.params", "research.errors"}),
        ("parallel", {"research.errors"}),
        ("durations", {"research.errors"}),
    ],
)
def test_a_room_imports_only_what_stands_below_it(room, allowed):
    assert not strays(room, allowed)


def test_only_the_programs_import_the_experiment():
    users = {
        str(path.relative_to(ROOT)) for path in FILES if any(within(name, {"research.experiment"}) for name in imports(path.read_text()))
    }
    assert "research/job.py" in users
    assert {file for file in users if not file.startswith("research/ablation/")} <= {"research/main.py", "research/job.py"}


def test_nothing_needs_torch_or_tensorflow_or_what_only_tests_have():
    banned = {"torch", "tensorflow", "sklearn", "pytest", "hypothesis", "tests"}
    found = {f"{path.name}: {name}" for path in FILES for name in imports(path.read_text()) if name.partition(".")[0] in banned}
    assert not found


def test_only_the_statistics_of_ablations_need_scipy():
    users = {path.parent.name for path in FILES if any(within(name, {"scipy"}) for name in imports(path.read_text()))}
    assert users == {"ablation"}


def test_nothing_that_may_run_inside_a_program_decomposes_matrices_or_transforms_signals():
    """LAPACK and FFT calls inside a jitted program can deadlock on a CPU with one device. NumPy's, on the host, are not meant."""
    calls = r"\b(?:jnp|lax|jsp|jax\.\w+|initializers)\.(?:linalg|fft|qr|svd|eigh?|cholesky|lu|orthogonal|delta_orthogonal)\b"
    assert re.search(calls, "nn.initializers.orthogonal()") and re.search(calls, "jnp.linalg.qr(x)")
    assert not {path.name: found for path in FILES if (found := re.findall(calls, path.read_text())) and path.name != "lstm.py"}
    assert re.findall(calls, (ROOT / "research" / "models" / "lstm.py").read_text()) == ["jnp.linalg"], "named in its docstring alone"


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
    paths = sorted((ROOT / "research" / "models").glob("*.py"))
    said = {path.name: re.findall(r"(?i)freez|frozen(?!=True)|\blora\b|\bpack", path.read_text()) for path in paths}
    assert len(said) > 12 and not {name: words for name, words in said.items() if words}
    assert re.findall(
        r"(?i)freez|\bpack", (ROOT / "research" / "model.py").read_text() + (ROOT / "research" / "data" / "batches.py").read_text()
    )
