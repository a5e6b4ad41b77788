"""Workers that die, and what becomes of the tasks. Most of these are scripts that speak the protocol and do as the run ids say."""

import json
import sys
import time

import pytest

from research.ablation import pool
from tests.ablation import commands

WORKER = """
import json, os, signal, sys, time
from pathlib import Path

workdir = Path(sys.argv[2])
for line in sys.stdin:
    task = json.loads(line)
    with (workdir / "tasks.txt").open("a") as told:
        print(os.getpid(), *task, file=told)
    for run_id in task:
        (workdir / run_id).mkdir(exist_ok=True)
        if run_id == "killed" or run_id == "flaky" and not (workdir / "flaky" / "tried").exists():
            (workdir / run_id / "tried").touch()
            print('{"say": "cut sh', end="", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if run_id == "broken":
            sys.exit("no such library")
        if run_id == "slow":
            time.sleep(600)
        (workdir / run_id / "result.json").write_text("{}")
        print(json.dumps({"say": f"{run_id} is done"}), flush=True)
    print(json.dumps({"done": True}), flush=True)
"""


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Has the tasks done by workers like the above; gives what was said, and the tasks as they were handed out."""
    monkeypatch.setattr(pool.Supervisor, "command", (sys.executable, "-c", WORKER))

    def serve(*tasks: list[str], jobs: int = 1) -> tuple[list[str], list[str]]:
        said = []
        with pool.Supervisor("any.py", tmp_path, tasks, jobs, said.append) as found:
            while not found.wait(0.1):
                pass
        return said, [line.split(" ", 1)[1] for line in (tmp_path / "tasks.txt").read_text().splitlines()]

    return serve


def errors(folder) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in folder.glob("*/error.txt")}


def test_one_worker_does_all_where_nothing_happens(serve, tmp_path):
    said, tasks = serve(["a"], ["b", "c"], ["d"])
    assert said == ["a is done", "b is done", "c is done", "d is done"] and tasks == ["a", "b c", "d"]
    assert len({line.split()[0] for line in (tmp_path / "tasks.txt").read_text().splitlines()}) == 1
    assert not errors(tmp_path)


def test_a_run_whose_worker_is_killed_is_marked_with_one_line_and_the_rest_goes_on(serve, tmp_path):
    said, tasks = serve(["a"], ["killed"], ["b"])
    why = "its process was killed (SIGKILL), most likely for want of memory"
    assert said == ["a is done", f"killed: failed: {why}", "b is done"] and tasks == ["a", "killed", "b"]
    assert errors(tmp_path) == {"killed": f"{why}\n"}


def test_a_worker_that_ends_by_itself_is_told_by_its_exit_code_and_its_log(serve, tmp_path):
    said, _ = serve(["broken"], ["b"])
    log = tmp_path / "worker-0.log"
    assert said == [f"broken: failed: its process ended with exit code 1; the end of {log} may say why", "b is done"]
    assert "no such library" in log.read_text()


def test_a_fleet_goes_on_together_once_and_then_one_by_one(serve, tmp_path):
    said, tasks = serve(["a", "killed", "b"], ["c"])
    assert tasks == ["a killed b", "a killed b", "killed", "b", "c"]
    assert [line.split(";")[-1] for line in said if "together" in line] == [" now once more", " now one by one"]
    assert list(errors(tmp_path)) == ["killed"] and said[-1] == "c is done"


def test_a_fleet_whose_worker_died_of_something_else_stays_together(serve, tmp_path):
    said, tasks = serve(["a", "flaky", "b"])
    assert tasks == ["a flaky b", "a flaky b"] and not errors(tmp_path)
    assert said.count("2 runs together: its process was killed (SIGKILL), most likely for want of memory; now once more") == 1


def test_several_workers_share_the_tasks(serve, tmp_path):
    _, tasks = serve(*([str(i)] for i in range(40)), ["killed"], jobs=3)
    assert sorted(tasks) == sorted([*map(str, range(40)), "killed"])
    assert len(list(tmp_path.glob("*/result.json"))) == 40 and list(errors(tmp_path)) == ["killed"]


def test_the_end_of_the_context_is_the_end_of_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(pool.Supervisor, "command", (sys.executable, "-c", WORKER))
    said = []
    with pool.Supervisor("any.py", tmp_path, [["a"], ["slow"], ["b"]], 1, said.append) as found:
        commands.wait((tmp_path / "slow").exists)
        assert not found.wait(0)
        worker = int((tmp_path / "tasks.txt").read_text().split()[0])
        assert commands.alive(worker)
        began = time.monotonic()
    assert time.monotonic() - began < 10 and not commands.alive(worker)
    assert said == ["a is done"] and not errors(tmp_path), "a run that is broken off has not failed"


def test_what_goes_wrong_in_the_supervisor_itself_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(pool.Supervisor, "command", (str(tmp_path / "none"),))
    with pool.Supervisor("any.py", tmp_path, [["a"]], 1, print) as found, pytest.raises(FileNotFoundError, match="none"):
        while not found.wait(0.1):
            pass


def test_a_worker_ends_when_its_supervisor_is_killed(tmp_path):
    with commands.start(f"--config={commands.TINY}:runs=1,steps=100000", f"--workdir={tmp_path}", "--only=linear_probe seed") as process:
        commands.wait(lambda: list(tmp_path.glob("*/metrics.jsonl")))
        (worker,) = commands.children(process.pid)
        assert commands.alive(worker)
        commands.kill(process.pid)
    commands.wait(lambda: not commands.alive(worker), 10)
    (folder,) = (path.parent for path in tmp_path.glob("*/config.json"))
    assert not {"result.json", "error.txt"} & {path.name for path in folder.iterdir()}
    assert json.loads((folder / "config.json").read_text())["method"] == "linear_probe"
