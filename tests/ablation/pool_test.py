"""Supervisor: distribution of tasks, and death of workers. Most workers here are scripts whose behaviour depends on the run id."""

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
    with (workdir / "tasks.txt").open("a") as log:
        print(os.getpid(), *task, file=log)
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
    """Return a function that runs tasks with WORKER and returns the messages, and the tasks in the order the workers received them."""
    monkeypatch.setattr(pool.Supervisor, "command", (sys.executable, "-c", WORKER))

    def serve(*tasks: list[str], jobs: int = 1) -> tuple[list[str], list[str]]:
        messages = []
        with pool.Supervisor("any.py", tmp_path, tasks, jobs, messages.append) as supervisor:
            while not supervisor.wait(0.1):
                pass
        return messages, [line.split(" ", 1)[1] for line in (tmp_path / "tasks.txt").read_text().splitlines()]

    return serve


def errors(folder) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in folder.glob("*/error.txt")}


def test_one_worker_runs_all_tasks_if_it_does_not_die(serve, tmp_path):
    messages, tasks = serve(["a"], ["b", "c"], ["d"])
    assert messages == ["a is done", "b is done", "c is done", "d is done"] and tasks == ["a", "b c", "d"]
    assert len({line.split()[0] for line in (tmp_path / "tasks.txt").read_text().splitlines()}) == 1
    assert not errors(tmp_path)


def test_a_run_whose_worker_is_killed_fails_with_one_line_and_the_other_runs_continue(serve, tmp_path):
    messages, tasks = serve(["a"], ["killed"], ["b"])
    reason = "its process was killed (SIGKILL), probably because memory ran out"
    assert messages == ["a is done", f"killed: failed: {reason}", "b is done"] and tasks == ["a", "killed", "b"]
    assert errors(tmp_path) == {"killed": f"{reason}\n"}


def test_the_error_of_a_worker_that_exits_names_its_exit_code_and_log(serve, tmp_path):
    messages, _ = serve(["broken"], ["b"])
    log = tmp_path / "worker-0.log"
    assert messages == [f"broken: failed: its process ended with exit code 1; see the end of {log}", "b is done"]
    assert "no such library" in log.read_text()


def test_a_fleet_is_retried_together_once_and_then_one_by_one(serve, tmp_path):
    messages, tasks = serve(["a", "killed", "b"], ["c"])
    assert tasks == ["a killed b", "a killed b", "killed", "b", "c"]
    ends = [line.split(";")[-1] for line in messages if "together" in line]
    assert ends == [" retrying them together", " retrying them one by one"]
    assert list(errors(tmp_path)) == ["killed"] and messages[-1] == "c is done"


def test_a_fleet_whose_worker_dies_only_once_stays_together(serve, tmp_path):
    messages, tasks = serve(["a", "flaky", "b"])
    assert tasks == ["a flaky b", "a flaky b"] and not errors(tmp_path)
    reason = "its process was killed (SIGKILL), probably because memory ran out"
    assert messages.count(f"2 runs trained together: {reason}; retrying them together") == 1


def test_several_workers_share_the_tasks(serve, tmp_path):
    _, tasks = serve(*([str(i)] for i in range(40)), ["killed"], jobs=3)
    assert sorted(tasks) == sorted([*map(str, range(40)), "killed"])
    assert len(list(tmp_path.glob("*/result.json"))) == 40 and list(errors(tmp_path)) == ["killed"]


def test_leaving_the_context_kills_the_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(pool.Supervisor, "command", (sys.executable, "-c", WORKER))
    messages = []
    with pool.Supervisor("any.py", tmp_path, [["a"], ["slow"], ["b"]], 1, messages.append) as supervisor:
        commands.wait((tmp_path / "slow").exists)
        assert not supervisor.wait(0)
        worker = int((tmp_path / "tasks.txt").read_text().split()[0])
        assert commands.alive(worker)
        start = time.monotonic()
    assert time.monotonic() - start < 10 and not commands.alive(worker)
    assert messages == ["a is done"] and not errors(tmp_path), "an interrupted run has not failed"


def test_exceptions_of_the_supervisors_threads_are_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(pool.Supervisor, "command", (str(tmp_path / "none"),))
    with pool.Supervisor("any.py", tmp_path, [["a"]], 1, print) as supervisor, pytest.raises(FileNotFoundError, match="none"):
        while not supervisor.wait(0.1):
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
