"""Replay of runs: trained alone, trained together, and with a changed environment."""

import io
import json

import pytest
from rich.console import Console

from research import storage
from research.ablation import replay, sweep, worker
from research.ablation import runs as sweep_runs
from research.errors import InputError
from tests import runs


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Yield a workdir, the id of a run that was trained alone, and the ids of two runs that were trained together."""
    folder = tmp_path_factory.mktemp("sweep")
    alone = {"method": "linear_probe", "data.seed": 1}
    overrides = [alone, *sweep.product([{"method": "linear_probe"}], sweep.seeds(2))]
    specs = sweep_runs.identify(
        [(one, runs.config("trec", **{name.replace(".", "__"): value for name, value in one.items()})) for one in overrides]
    )
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, str(tmp_path_factory.mktemp("compiled"))):
        tasks = sweep_runs.tasks(specs, True, "")
        for task in tasks:
            worker.do({run_id: specs[run_id] for run_id in task}, folder, lambda text: None)
        assert [len(task) for task in tasks] == [1, 2]
        yield folder, *specs


def run_replay(folder, prefix) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=300, highlight=False, soft_wrap=True, markup=False)
    return replay.replay(folder, prefix, console), console.file.getvalue()


def change_result(folder, run_id, part, **values):
    """Change `values` in `part` of the run's result.json, and return the file's path and original text."""
    path = folder / run_id / "result.json"
    text = path.read_text()
    result = json.loads(text)
    result[part] |= values
    storage.write_json(path, result)
    return path, text


def test_a_run_trained_alone_is_reproduced(done):
    folder, alone, *_ = done
    sha = json.loads((folder / alone / "result.json").read_text())["params"]["sha256"]
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    same, output = run_replay(folder, alone[:6])
    assert same and f"{alone}: training it again\n" in output and output.endswith(f"{alone}: the parameters are the same, sha256 {sha}\n")
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before, "a replay leaves the run's files unchanged"


def test_a_member_of_a_fleet_is_replayed_together_with_the_others(done):
    folder, _, first, second = done
    for run_id in (first, second):
        same, output = run_replay(folder, run_id)
        assert same and "training it again, as one of 2 runs trained together\n" in output and "2 runs as one program" in output


def test_different_parameters_are_reported_with_other_differences(done):
    folder, alone, *_ = done
    for part, values, line in (
        ("environment", {"jax": "0.1.0"}, "  jax: is 0."),
        ("data", {"fingerprint": "other"}, "  fingerprint: is "),
        ("weights", {"sha256": "other"}, "  sha256: is "),
    ):
        (path, text), _ = change_result(folder, alone, "params", sha256="feed"), change_result(folder, alone, part, **values)
        try:
            same, output = run_replay(folder, alone)
        finally:
            path.write_text(text)
        (*_, first_line, difference) = output.splitlines()
        assert not same and f"{alone}: the parameters differ: sha256 is " in first_line and first_line.endswith("now, was feed")
        assert difference.startswith(line) and difference.endswith(f"now, was {next(iter(values.values()))}")


def test_the_error_for_an_unknown_run_names_the_nearest_id(done, tmp_path):
    folder, alone, first, second = done
    with pytest.raises(InputError, match=f"--replay={alone[:-1]}!: did you mean '{alone}'. in {folder}"):
        run_replay(folder, f"{alone[:-1]}!")
    with pytest.raises(InputError, match="--replay=: 3 finished runs have ids that begin so in "):
        run_replay(folder, "")
    with pytest.raises(InputError, match="--replay=abc: known: none in "):
        run_replay(tmp_path, "abc")
