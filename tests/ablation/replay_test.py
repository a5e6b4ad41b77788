"""Runs done once more: alone, in the company they had, and where something is not what it was."""

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
    """A workdir, and the ids of a run that was alone in it and of two that were not."""
    folder = tmp_path_factory.mktemp("sweep")
    alone = {"method": "linear_probe", "data.seed": 1}
    overrides = [alone, *sweep.product([{"method": "linear_probe"}], sweep.seeds(2))]
    found = sweep_runs.identify(
        [(one, runs.config("trec", **{name.replace(".", "__"): value for name, value in one.items()})) for one in overrides]
    )
    with pytest.MonkeyPatch.context() as patch, runs.compile_quickly(patch, str(tmp_path_factory.mktemp("compiled"))):
        tasks = sweep_runs.tasks(found, True, "")
        for task in tasks:
            worker.do({run_id: found[run_id] for run_id in task}, folder, lambda text: None)
        assert [len(task) for task in tasks] == [1, 2]
        yield folder, *found


def again(folder, wanted) -> tuple[bool, str]:
    console = Console(file=io.StringIO(), width=300, highlight=False, soft_wrap=True, markup=False)
    return replay.replay(folder, wanted, console), console.file.getvalue()


def changed(folder, run_id, part, **values):
    """The result as it would be, had it been like this; gives what was there."""
    path = folder / run_id / "result.json"
    text = path.read_text()
    result = json.loads(text)
    result[part] |= values
    storage.write_json(path, result)
    return path, text


def test_a_run_that_was_alone_gives_the_same_parameters_again(done):
    folder, alone, *_ = done
    sha = json.loads((folder / alone / "result.json").read_text())["params"]["sha256"]
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    good, said = again(folder, alone[:6])
    assert good and f"{alone}: once more\n" in said and said.endswith(f"{alone}: the same parameters again, sha256 {sha}\n")
    assert sorted(path.stat().st_mtime_ns for path in folder.rglob("*")) == before, "the run itself is not touched"


def test_a_member_of_a_fleet_is_replayed_with_the_others(done):
    folder, _, first, second = done
    for run_id in (first, second):
        good, said = again(folder, run_id)
        assert good and "once more, one of 2 together as it was\n" in said and "2 runs as one program" in said


def test_other_parameters_are_reported_with_what_differs(done):
    folder, alone, *_ = done
    for part, values, line in (
        ("environment", {"jax": "0.1.0"}, "  jax: 0."),
        ("data", {"fingerprint": "other"}, "  fingerprint: "),
        ("weights", {"sha256": "other"}, "  sha256: "),
    ):
        undo = [changed(folder, alone, "params", sha256="feed"), changed(folder, alone, part, **values)]
        try:
            good, said = again(folder, alone)
        finally:
            undo[0][0].write_text(undo[0][1])
        (*_, verdict, differs) = said.splitlines()
        assert not good and f"{alone}: other parameters: sha256 " in verdict and verdict.endswith("but feed then")
        assert differs.startswith(line) and differs.endswith(f"now, {next(iter(values.values()))} then")


def test_a_run_that_is_not_there_is_refused_by_the_nearest(done, tmp_path):
    folder, alone, first, second = done
    with pytest.raises(InputError, match=f"--replay={alone[:-1]}!: did you mean '{alone}'. in {folder}"):
        again(folder, f"{alone[:-1]}!")
    with pytest.raises(InputError, match="--replay=: 3 finished runs begin so in "):
        again(folder, "")
    with pytest.raises(InputError, match="--replay=abc: known: none in "):
        again(tmp_path, "abc")
