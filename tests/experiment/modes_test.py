"""Test full runs of the tiny model: the contract of the workdir, and equal results of resumed runs and of runs in other layouts."""

import io
import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from rich.console import Console

from research.data import loading
from research.errors import InputError
from research.experiment import build as experiments
from research.experiment import modes, summary
from research.experiment import workdir as workdirs
from research.tasks import catalog
from research.train.checkpoint import Checkpoints
from research.train.run import check_identity
from tests import runs

QUIET = Console(quiet=True)
SELECTION = {
    "split": "dev",
    "titles": {"accuracy": "accuracy", "f1": "f1 of 'pos'", "macro_f1": "macro_f1"},
    "percent": True,
    "higher_is_better": True,
}
LONGER = ["--config.total_steps=40", "--config.checkpoint_steps=7", "--config.eval_steps=10"]


def run(workdir, *args, **changes):
    return modes.run(runs.config(*args, **changes), workdir, QUIET)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder of a finished run, which no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder)
    return folder


@pytest.fixture
def unfinished(finished, tmp_path):
    """Return a copy of the finished run without its result."""
    shutil.copytree(finished, tmp_path / "unfinished")
    (tmp_path / "unfinished" / "result.json").unlink()
    return tmp_path / "unfinished"


def contents(folder):
    return json.loads((folder / "result.json").read_text())


def test_the_workdir_holds_what_the_contract_names(finished):
    result = contents(finished)
    for name in (
        "config.json",
        "plan.txt",
        "metrics.jsonl",
        "checkpoints",
        "predictions/test.jsonl",
        "curves.png",
        "confusion.png",
        "result.json",
    ):
        assert (finished / name).exists(), name
    assert list((finished / "tensorboard").iterdir())
    assert run(finished) == result
    assert {"status", "config", "config_hash", "seed", "selected_step", "weights", "data", "environment"} < result.keys()
    assert result["selection"] == SELECTION | {"metric": "accuracy", "positive": "pos"}
    assert result["params"].keys() == {"total", "trainable", "checkpoint_bytes", "sha256"}
    speed = {"first_step_s", "steps_per_s", "examples_per_s", "real_tokens_per_s", "padding_fraction", "step_flops"}
    assert speed < result["speed"].keys()
    assert result["data"]["sizes"] == {"train": 32, "dev": 16, "test": 16}
    assert result["data"]["raw_fingerprint"] == loading.load(catalog.get("imdb"), source="demo").raw_fingerprint
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2] and "dev/accuracy" in lines[-1]


@pytest.mark.parametrize("schedule", ["linear", "constant"])
def test_the_learning_rate_of_each_line_is_the_schedules(tmp_path, schedule):
    run(tmp_path, total_steps=10, warmup_steps=5, learning_rate=1e-3, schedule=schedule, log_steps=1)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    after = {"linear": [1.0, 0.8, 0.6, 0.4, 0.2], "constant": [1.0] * 5}[schedule]  # of the update that the line ends with
    expected = 1e-3 * np.array([0.0, 0.2, 0.4, 0.6, 0.8, *after])
    np.testing.assert_allclose([line["learning_rate"] for line in lines if "learning_rate" in line], expected, atol=1e-9)


@pytest.mark.parametrize("name", runs.CONFIGS)
def test_every_config_can_be_trained_in_smoke(name):
    """Check the shapes; `commands_test` runs each config."""
    planned = experiments.plan_of(runs.config(name))
    assert planned.total_steps == 2 and planned.train.steps == 4


def test_predictions_repeat_the_texts_and_agree_with_the_metrics(finished):
    rows = [json.loads(line) for line in (finished / "predictions" / "test.jsonl").read_text().splitlines()]
    assert rows[0].keys() == {"id", "text", "label", "prediction", "probabilities"}
    assert np.mean([row["label"] == row["prediction"] for row in rows]) == contents(finished)["metrics"]["test"]["accuracy"]


def test_the_scores_of_each_class_and_the_confusion_matrix_are_those_of_the_predictions(tmp_path):
    result = run(tmp_path, metric="f1", positive="neg")
    assert result["selection"] == SELECTION | {
        "metric": "f1",
        "positive": "neg",
        "titles": SELECTION["titles"] | {"f1": "f1 of 'neg'"},
    }
    assert result["labels"] == ["neg", "pos"]
    for split in ("dev", "test"):
        rows = [json.loads(line) for line in (tmp_path / "predictions" / f"{split}.jsonl").read_text().splitlines()]
        counts = [
            [sum((row["label"], row["prediction"]) == (true, guess) for row in rows) for guess in ("neg", "pos")] for true in ("neg", "pos")
        ]
        assert result["confusion"][split] == counts
        each, scores = result["classes"][split], result["metrics"][split]
        assert [each[label]["support"] for label in ("neg", "pos")] == [sum(row) for row in counts]
        assert scores["f1"] == each["neg"]["f1"] and scores["macro_f1"] == pytest.approx((each["neg"]["f1"] + each["pos"]["f1"]) / 2)
    best = Checkpoints(tmp_path / "checkpoints", "best").meta()
    assert best["score"] == result["metrics"]["dev"]["f1"]


def test_the_tables_at_the_end_name_the_class_and_leave_out_what_says_nothing(tmp_path):
    console = Console(file=io.StringIO(), width=200)
    summary.summarise(modes.run(runs.config(positive="neg", metric="recall"), tmp_path / "two", QUIET), tmp_path / "two", console)
    summary.summarise(modes.run(runs.config("trec"), tmp_path / "six", QUIET), tmp_path / "six", console)
    two, six = console.file.getvalue().split("trec (demo)")
    assert "f1 of 'neg'" in two and "best dev recall of 'neg'" in two and "macro_f1" in two
    (header,) = (line for line in six.splitlines() if "macro_f1" in line)
    assert header.count("f1") == 1 and "class_5" in six


def test_a_metric_or_a_class_that_is_not_there_is_refused_before_anything_is_built(tmp_path):
    for changes, line in (({"metric": "f2"}, "metric 'f2' is not known; did you mean 'f1'"), ({"positive": "Pos"}, "did you mean 'pos'")):
        for mode in ("plan", "train"):
            with pytest.raises(InputError, match=line):
                modes.do(mode, runs.config(**changes), tmp_path)


def test_the_same_config_gives_the_same_parameters_and_another_seed_others(finished, tmp_path):
    again, other = (run(tmp_path / str(seed), seed=seed)["params"]["sha256"] for seed in (0, 1))
    assert contents(finished)["params"]["sha256"] == again != other


def test_a_killed_run_ends_as_if_nothing_had_happened(tmp_path):
    flags = ["--config=configs/imdb.py:smoke", *LONGER]
    runs.start(*flags, f"--workdir={tmp_path / 'whole'}")
    process = subprocess.Popen(
        runs.command(*flags, f"--workdir={tmp_path / 'cut'}"), env=runs.environment(), cwd=runs.ROOT, stderr=subprocess.DEVNULL
    )
    latest = tmp_path / "cut" / "checkpoints" / "latest"
    while not any(path.name.isdigit() for path in latest.glob("*")):
        time.sleep(0.002)
        assert process.poll() is None, "it was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "cut" / "result.json").exists()
    assert "resuming from step" in runs.start(*flags, f"--workdir={tmp_path / 'cut'}").stderr

    uninterrupted, cut = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("whole", "cut"))
    assert uninterrupted["params"]["sha256"] == cut["params"]["sha256"]
    for same in ("metrics", "selected_step"):
        assert uninterrupted[same] == cut[same], same
    curves = [[json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()] for name in ("whole", "cut")]
    assert [line["step"] for line in curves[0]] == [line["step"] for line in curves[1]]
    assert curves[0] == curves[1]


def test_a_run_that_stopped_before_it_was_killed_has_stopped_when_it_is_started_again(tmp_path):
    stops = dict(total_steps=40, eval_steps=2, checkpoint_steps=2, log_steps=2, patience_steps=4, learning_rate=1e-9)
    result, best = run(tmp_path, **stops), Checkpoints(tmp_path / "checkpoints", "best").step
    before = (tmp_path / "metrics.jsonl").read_text()
    last = json.loads(before.splitlines()[-1])["step"]
    assert last == best + 4 < 40 and Checkpoints(tmp_path / "checkpoints", "latest").meta()["stopped"] is True
    (tmp_path / "result.json").unlink()
    again = run(tmp_path, **stops)
    assert (tmp_path / "metrics.jsonl").read_text() == before
    assert (again["params"]["sha256"], again["selected_step"]) == (result["params"]["sha256"], best)

    (tmp_path / "result.json").unlink()
    shutil.rmtree(tmp_path / "checkpoints" / "best")
    with pytest.raises(InputError, match=f"best: the checkpoint of step {best} is missing; remove {tmp_path} and train again"):
        run(tmp_path, **stops)


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_damaged_file_of_the_workdir_is_one_line_that_names_it(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(100))
    with pytest.raises(InputError, match=rf"{tmp_path / name} is damaged \(.*\); remove {tmp_path} and run again"):
        run(tmp_path)


def test_a_finished_run_is_trained_further_the_way_that_it_names(finished, tmp_path):
    first, printed = contents(finished), io.StringIO()
    again = modes.run(runs.config(), finished, Console(file=printed, width=500))
    assert again == first and f"{finished} is finished already" in printed.getvalue() and workdirs.TRAIN_ON in printed.getvalue()
    for mode in ("train", "plan"):
        with pytest.raises(InputError, match="total_steps is 2 there and 4 now; .* To train it further: --mode=export"):
            modes.do(mode, runs.config(total_steps=4), finished)
    folder = tmp_path / "exported"
    modes.do("export", runs.config(), finished, output=str(folder))
    further = {"weights__source": str(folder), "weights__head": True}
    same = run(tmp_path / "same", **further, learning_rate=0.0)
    assert same["metrics"] == {split: pytest.approx(scores, abs=1e-5) for split, scores in first["metrics"].items()}
    assert run(tmp_path / "more", **further)["params"]["sha256"] != same["params"]["sha256"]


@pytest.mark.devices
def test_a_run_over_eight_devices_goes_on_too_and_ends_where_one_device_ends(tmp_path):
    one = run(tmp_path / "one", precision="float32")
    several = run(tmp_path / "several", precision="float32", parallel="pmap")
    assert several["metrics"]["test"]["loss"] == pytest.approx(one["metrics"]["test"]["loss"], abs=1e-5)
    (tmp_path / "several" / "result.json").unlink()
    again = run(tmp_path / "several", precision="float32", parallel="pmap")
    assert again["params"]["sha256"] == several["params"]["sha256"]


def test_one_workdir_is_one_process_at_a_time(unfinished):
    with workdirs.claimed(unfinished, runs.config()):
        with pytest.raises(InputError, match="another process is running there"):
            run(unfinished)
    assert run(unfinished)["status"] == "finished"


def test_other_data_under_an_unfinished_run_is_refused(tmp_path):
    meta = {"weights": "w", "data": "d"}
    with pytest.raises(InputError, match="trained on other data .d there, e now."):
        check_identity(tmp_path, meta, meta | {"data": "e"})
    check_identity(tmp_path, meta, meta)


def test_a_workdir_of_another_config_is_refused_by_the_field_that_differs(finished):
    with pytest.raises(InputError, match="learning_rate is 2e-05 there and 0.1 now"):
        run(finished, learning_rate=0.1)


def test_a_refused_run_leaves_nothing_behind(tmp_path):
    for place in (tmp_path / "new" / "run", tmp_path / "there"):
        (tmp_path / "there").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="method"):
            run(place, method="full+top_k")
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


@pytest.mark.parametrize("name", ["lr[1e-3]", "a b*?", "%41#\u00e4\u4e2d", os.fsdecode(b"\xff")])
def test_any_path_that_the_file_system_takes_is_a_workdir(tmp_path, name):
    result = run(tmp_path / name)
    assert json.loads((tmp_path / name / "result.json").read_text()) == result
    assert modes.load_trained(runs.config(), tmp_path / name).trainable.keys() == {"encoder", "head"}


def test_the_default_name_is_safe_and_says_what_differs():
    name = workdirs.default(runs.config()).name
    assert name.startswith("imdb-demo-tiny-full-") and name == workdirs.default(runs.config()).name
    assert workdirs.default(runs.config(weights__source="scratch", seed=3)).name.startswith("imdb-demo-tiny-scratch-full-seed3-")
    odd = workdirs.default(runs.config(model="/a/my model:x/", method="lora+bitfit"))
    assert odd.parent.name == "runs" and odd.name.startswith("imdb-demo-my-model-x-lora+bitfit-")


def test_a_probe_saves_its_head_alone_and_leaves_the_encoder_as_it_was(finished, tmp_path):
    c = runs.config(arg="smoke,method=linear_probe")
    result = modes.run(c, tmp_path, QUIET)
    before, after = runs.build_model(c, ("neg", "pos")), modes.load_trained(c, tmp_path)
    assert result["params"]["trainable"] == 66
    assert result["params"]["checkpoint_bytes"] < 10_000
    assert set(after.trainable) == {"head"}
    assert not np.array_equal(before.trainable["head"]["classifier"]["kernel"], after.trainable["head"]["classifier"]["kernel"])
    assert contents(finished)["params"]["checkpoint_bytes"] > 5 * result["params"]["checkpoint_bytes"]
    assert Checkpoints(tmp_path / "checkpoints", "best").step == result["selected_step"]
