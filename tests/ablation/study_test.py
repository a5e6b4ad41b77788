"""The sweep command: from a sweep's file to its tables, after an interruption, and with bad input."""

import csv
import json
import re
import signal

import pytest
from rich.console import Console

from research.ablation import study
from research.errors import InputError
from research.experiment import build as experiments
from tests.ablation import commands, sweeps

SIX = f"--config={commands.TINY}:runs=6,steps=4"


def done(*flags: str) -> str:
    """Return the standard output of the command, after checking that it succeeded."""
    process = commands.run(*flags)
    assert process.returncode == 0, process.stderr
    return process.stdout


def refused(*flags: str) -> str:
    """Return the error line of the command, after checking that it failed with one line."""
    process = commands.run(*flags)
    assert (process.returncode, process.stdout) == (2, ""), process.stderr
    (line,) = process.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def statuses(folder) -> list[str]:
    return [line["status"] for line in csv.DictReader((folder / "table.csv").read_text().splitlines())]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return the workdir of a finished sweep of a fleet and single runs; its last run had failed before."""
    folder = tmp_path_factory.mktemp("sweep")
    ids = [line.split()[0] for line in done(SIX, f"--workdir={folder}", "--dry_run").splitlines()]
    assert not list(folder.iterdir()), "a dry run writes nothing"
    for run_id in ids[-1:]:
        (folder / run_id).mkdir()
        (folder / run_id / "error.txt").write_text("OSError: no space left\n")
    done(SIX, f"--workdir={folder}", "--only=data.seed|linear_probe seed")
    return folder


def test_failed_runs_are_trained_again_and_the_tables_have_all_results(folder):
    assert not list(folder.glob("*/error.txt")) and statuses(folder) == ["finished"] * 4
    assert {"table.md", "table.csv", "table.tex", "page.html", "sweep.txt"} < {path.name for path in folder.iterdir()}
    shown = done(SIX, f"--workdir={folder}", "--only=data.seed|linear_probe seed")
    assert shown == (folder / "table.md").read_text() and shown.startswith("| method | data.seed | n | test |")
    assert (folder / "page.html").read_text().count("--replay=") == 4
    assert r"\toprule" in (folder / "table.tex").read_text()


def test_a_dry_run_lists_finished_and_missing_runs(folder):
    lines = done(SIX, f"--workdir={folder}", "--dry_run").splitlines()
    assert [re.sub(r"^\w{12} ", "", line) for line in lines] == [
        "finished method=linear_probe seed=0",
        "to do method=lora seed=0 learning_rate=0.0001",
        "to do method=full learning_rate=0.0001",
        "finished method=linear_probe data.seed=1",
        "finished method=linear_probe data.seed=2",
        "finished method=linear_probe data.seed=3",
    ]


def test_an_interrupted_sweep_writes_tables_and_can_be_resumed(tmp_path):
    flags = f"--config={commands.TINY}:runs=6,steps=100", f"--workdir={tmp_path}", "--only=linear_probe"
    with commands.start(*flags) as process:
        commands.wait(lambda: list(tmp_path.glob("*/result.json")), 180)
        (worker,) = commands.children(process.pid)
        commands.kill(-process.pid, by=signal.SIGINT)
        out, errors = process.communicate()
    assert process.returncode == 130 and errors.endswith("Interrupted. Run the same command again to resume from the latest checkpoint.\n")
    assert "Traceback" not in errors + "".join(log.read_text() for log in tmp_path.glob("*.log"))
    assert not commands.alive(worker) and not list(tmp_path.glob("*/error.txt"))
    finished = [path.parent.name for path in tmp_path.glob("*/result.json")]
    assert out == (tmp_path / "table.md").read_text() and 0 < statuses(tmp_path).count("finished") == len(finished) < 4
    before = {name: (tmp_path / name / "result.json").stat().st_mtime_ns for name in finished}
    done(*flags)
    assert statuses(tmp_path) == ["finished"] * 4
    assert {name: (tmp_path / name / "result.json").stat().st_mtime_ns for name in finished} == before


def test_a_share_of_an_array_job_writes_no_tables(tmp_path):
    assert done(SIX, f"--workdir={tmp_path}", "--only=data.seed=[12]", "--index=1/2") == ""
    assert not list(tmp_path.glob("table.*")) and len(list(tmp_path.glob("*/result.json"))) == 1
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("*/result.json"))
    assert result["config"]["data"]["seed"] == 2


FREEZING = "configs/ablations/freezing.py:smoke,seeds=1"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--config.data.source=files", "--config.data.path=/nowhere"], "/nowhere"),
        (["--config.model=bert-bse"], "bert-bse"),
        (["--config.schedule=warmup"], "warmup"),
    ],
)
def test_an_error_of_all_runs_is_raised_once_before_training(changes, words, tmp_path):
    with pytest.raises(InputError, match=rf"^all \d+ runs of the sweep would fail: .*{words}") as error:
        study.Study(FREEZING, tmp_path / "runs", changes=changes).check()
    assert "\n" not in str(error.value) and not (tmp_path / "runs").exists()


def test_an_error_of_some_runs_does_not_stop_the_others(tmp_path):
    (tmp_path / "some.py").write_text(
        "from configs import trec\n\ndef base(_):\n    return trec.get_config('smoke')\n\n"
        "def sweep(_):\n    return [{'max_length': 16}, {'max_length': 3_000}]\n"
    )
    study.Study(str(tmp_path / "some.py"), tmp_path / "runs").check()
    study.Study(FREEZING, tmp_path / "runs").check()


def test_changes_of_the_base_config_apply_to_every_run(tmp_path):
    unchanged = study.Study(FREEZING, tmp_path).plan().splitlines()
    sixteen = study.Study(FREEZING, tmp_path, changes=["--config.batch_size=16", "--config.total_epochs=2"])
    assert len(sixteen.plan().splitlines()) == len(unchanged) and not {line.split()[0] for line in unchanged} & set(sixteen._runs)
    for _, config in sixteen._runs.values():
        assert (config.batch_size, config.total_epochs, config.total_steps) == (16, 2.0, None)
    for change, words in (
        ("--config.batch_siz=3", "did you mean 'batch_size'"),
        ("--config.batch_size=x", "batch_size=x"),
        ("--config.top_layers=1", "--config.top_layers: the sweep of .*freezing.py sets top_layers itself"),
    ):
        with pytest.raises(InputError, match=words) as error:
            study.Study(FREEZING, tmp_path, changes=[change])
        assert "\n" not in str(error.value)


def test_runs_on_changed_data_are_left_out_and_removed_on_request(tmp_path):
    for split, texts in (("train", 400), ("test", 24)):
        rows = "".join(f"text {i} of {split}\t{'yes' if i % 2 else 'no'}\n" for i in range(texts))
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + rows)
    changes = ["--config.task=custom", "--config.data.source=files", f"--config.data.path={tmp_path}"]
    sweep = study.Study(FREEZING, tmp_path / "runs", changes=changes)
    now = experiments.load_data(next(iter(sweep._runs.values()))[1]).raw_fingerprint
    for run_id, data in zip(sweep._runs, ("before", now), strict=False):
        (tmp_path / "runs" / run_id).mkdir(parents=True)
        result = sweeps.result(0.5) | {"data": {"raw_fingerprint": data}}
        (tmp_path / "runs" / run_id / "result.json").write_text(json.dumps(result))
    assert [run.status for run in sweep._current_results()][:2] == ["outdated", "finished"]
    assert "Left out: 1 run on other data than the newest run" in sweep.report()
    old, new = list(sweep._runs)[:2]
    sweep.remove_outdated(Console(quiet=True))
    assert not (tmp_path / "runs" / old).exists() and (tmp_path / "runs" / new / "result.json").exists()
    assert "Left out" not in sweep.report()


@pytest.mark.slow
def test_a_run_is_replayed_by_its_id(folder):
    run_id = next(folder.glob("*/result.json")).parent.name
    process = commands.run(SIX, f"--workdir={folder}", f"--replay={run_id}")
    assert process.returncode == 0 and f"{run_id}: the parameters are the same" in process.stderr and "Traceback" not in process.stderr
    path = folder / run_id / "result.json"
    text = path.read_text()
    result = json.loads(text)
    result["params"]["sha256"] = "feed"
    path.write_text(json.dumps(result))
    process = commands.run(SIX, f"--workdir={folder}", f"--replay={run_id}")
    path.write_text(text)
    assert process.returncode == 1 and "the parameters differ" in process.stderr


SWEEPS = {
    "unknown.py": '[{"method": "lora", "lora.rnk": 2}]',
    "twice.py": '[{"method": "full"}, {"seed": 0, "method": "full"}]',
    "method.py": '[{"method": "lroa"}]',
}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("unknown.py", "'lora.rnk' is not known; did you mean 'lora.rank'"),
        ("twice.py", "one run twice: {'method': 'full'} and {'seed': 0, 'method': 'full'}"),
        ("method.py", "did you mean 'lora'"),
    ],
)
def test_an_invalid_sweep_fails_with_one_line(name, words, tmp_path):
    (tmp_path / name).write_text(
        f"from configs import trec\n\ndef base(_):\n    return trec.get_config('smoke')\n\ndef sweep(_):\n    return {SWEEPS[name]}\n"
    )
    assert words in refused(f"--config={tmp_path / name}", f"--workdir={tmp_path / 'runs'}")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--only=nothing"], "--only=nothing matches no run; the runs are method=linear_probe seed=0; "),
        (["--index=3"], "--index=3 is not I/N with I from 0 to N - 1"),
        (["--replay=nothing"], "--replay=nothing: known: "),
        (["--jobs=0"], "jobs"),
        (["--fleet"], "fleet"),
    ],
)
def test_invalid_flags_fail_with_one_line(flags, words, folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert words in refused(SIX, f"--workdir={folder}", *flags)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_the_workdir_of_another_sweep_is_an_error_and_stays_unchanged(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    line = refused("--config=configs/ablations/freezing.py:smoke", f"--workdir={folder}")
    assert line == f"error: {folder} holds the runs of tiny.py, not of freezing.py; give another --workdir"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
