"""A trained run in use, by its workdir alone: predictions as they come, evaluations that leave the run as it is."""

import csv
import gc
import hashlib
import io
import json

import numpy as np
import pytest
from rich.console import Console

from research.config import recorded
from research.data.examples import Examples
from research.data.inputs import Input
from research.errors import InputError
from research.experiment import modes
from research.experiment import predict as predictions
from research.parallel import layouts
from research.train import trainers
from tests import runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a trained run on files: six texts with labels for each split."""
    folder = tmp_path_factory.mktemp("use")
    lines = "".join(f"text number {i}\t{'no' if i % 2 else 'yes'}\n" for i in range(6))
    for split in ("train", "dev", "test"):
        (folder / f"{split}.tsv").write_text(f"text\tlabel\n{lines}")
    c = runs.config("custom", data__source="files", data__path=str(folder), data__train_examples=0, data__eval_examples=0)
    modes.run(c, folder / "run", Console(quiet=True))
    return folder / "run"


def used(run, mode, *flags, **kwargs):
    return runs.main(f"--mode={mode}", f"--workdir={run}", *flags, **kwargs)


def state(run):
    """Return name -> digest of all files of a run but those of its evaluations."""
    files = [path for path in run.rglob("*") if path.is_file() and "evaluations" not in path.parts]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_workdir_alone_says_all_that_use_needs(run, tmp_path):
    before = state(run)
    lines = [json.loads(line) for line in used(run, "predict", "--input=-", stdin="one\ntwo\n").stdout.splitlines()]
    assert [(line["id"], line["text"]) for line in lines] == [("0", "one"), ("1", "two")]
    by_file = runs.main("--mode=predict", "--input=-", f"--config={run / 'config.json'}", stdin="one\ntwo\n").stdout.splitlines()
    assert [json.loads(line) for line in by_file] == lines
    assert "trains 25,922 of" in used(run, "plan").stdout
    assert "same logits" in used(run, "export", f"--output={tmp_path / 'out'}").stderr and (tmp_path / "out" / "config.json").exists()
    assert state(run) == before


def test_where_and_how_it_runs_may_differ_and_nothing_else(run):
    flags = ["--config.precision=float32", "--config.parallel=pmap", "--config.eval_batch_tokens=64", "--config.batch_size=4"]
    assert used(run, "predict", *flags, "--input=-", stdin="one\n").stdout
    for flag, field in (
        ("--config.max_length=16", "max_length is 32"),
        ("--config.data.path=x", "data.path is"),
        ("--config.seed=1", "seed"),
    ):
        done = used(run, "predict", flag, "--input=-", stdin="one\n", check=False)
        assert done.returncode == 2 and field in done.stderr


def test_an_older_run_takes_newer_fields_by_their_defaults(run, tmp_path):
    saved = json.loads((run / "config.json").read_text())
    del saved["truncation"], saved["lora"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert recorded.get_config(str(tmp_path / "config.json")).to_dict() == json.loads((run / "config.json").read_text())
    for content, words in (('{"task": ', "damaged"), ("[]", "damaged"), ("{}", "'task' is missing")):
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(InputError, match=words):
            recorded.get_config(str(tmp_path / "config.json"))
    (tmp_path / "config.json").write_text(json.dumps(saved | {"gone": 1}))
    with pytest.raises(InputError, match="'gone' is of another version"):
        recorded.get_config(str(tmp_path / "config.json"))


def test_a_file_with_labels_is_evaluated_and_one_without_is_refused(run, tmp_path):
    (tmp_path / "my.tsv").write_text("text\tlabel\none\tyes\ntwo\tyes\nthree\tno\n")
    before, done = state(run), used(run, "evaluate", f"--input={tmp_path / 'my.tsv'}")
    (folder,) = (run / "evaluations").glob("my-*")
    lines = [json.loads(line) for line in (folder / "input.jsonl").read_text().splitlines()]
    accuracy = np.mean([line["label"] == line["prediction"] for line in lines])
    assert json.loads(done.stdout)["input"]["accuracy"] == pytest.approx(accuracy) and len(lines) == 3
    assert json.loads((folder / "scores.json").read_text())["metrics"] == json.loads(done.stdout)
    assert state(run) == before
    for content, words in (("text\none\n", "no labels there"), ("text\tlabel\none\tmaybe\n", "0: label 'maybe' is not a class")):
        (tmp_path / "other.tsv").write_text(content)
        assert words in used(run, "evaluate", f"--input={tmp_path / 'other.tsv'}", check=False).stderr


def test_other_data_are_said_and_the_runs_own_results_stay(run, tmp_path):
    before, result = state(run), json.loads((run / "result.json").read_text())
    same = used(run, "evaluate")
    assert json.loads(same.stdout) == result["metrics"] and "other data" not in same.stderr
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\none\tyes\ntwo\tno\nthree\tno\n")
    other = used(run, "evaluate", f"--config.data.path={tmp_path}")
    assert "these are other data than the run's" in other.stderr and result["data"]["fingerprint"][:12] in other.stderr
    assert state(run) == before and len(list((run / "evaluations").glob(f"{tmp_path.name[:10]}*"))) == 1


def test_output_is_by_its_ending_with_the_text_and_whole_or_not_there(run, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"id": "a", "text": "one, \\"two\\"\\tand\\nthree"}\n{"id": "b", "text": "four"}\n')
    for ending in ("jsonl", "csv", "tsv"):
        used(run, "predict", f"--input={tmp_path / 'in.jsonl'}", f"--output={tmp_path / f'out.{ending}'}")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    with (tmp_path / "out.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["text"] for row in table] == [row["text"] for row in rows] == ['one, "two"\tand\nthree', "four"]
    assert list(table[0]) == ["id", "text", "prediction", "probability_no", "probability_yes"]
    tabbed = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert tabbed == [list(table[0]), ["a", 'one, "two" and three', *list(table[0].values())[2:]], list(table[1].values())]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("output", "words"), [("out.xls", "ends in .jsonl, .csv, .tsv"), ("out", "no ending"), ("none/out.csv", "its folder is not there")]
)
def test_an_output_that_cannot_be_is_refused_first(run, tmp_path, output, words):
    with pytest.raises(InputError, match=words):
        modes.do(
            "predict", recorded.get_config(str(run / "config.json")), run, source=str(tmp_path / "none.txt"), output=str(tmp_path / output)
        )


def test_lines_are_written_as_they_come_and_the_file_is_there_at_the_end(tmp_path):
    path, seen = tmp_path / "out.jsonl", []

    def rows():
        for i in range(3):
            yield {"id": str(i), "probabilities": {}}
            seen.append((path.exists(), (tmp_path / "out.jsonl.part").read_text().count("\n")))

    predictions.write(rows(), str(path), None, Console(quiet=True))
    assert seen == [(False, 1), (False, 2), (False, 3)]
    assert path.read_text().count("\n") == 3 and not (tmp_path / "out.jsonl.part").exists()


def test_a_row_that_cannot_be_used_is_found_before_anything_is_computed(run, tmp_path, monkeypatch):
    (tmp_path / "in.txt").write_text("one\n" * 50 + "\n")
    monkeypatch.setattr(modes, "load_trained", lambda *_: pytest.fail("the model was loaded"))
    done = used(run, "predict", f"--input={tmp_path / 'in.txt'}", f"--output={tmp_path / 'out.csv'}", check=False)
    assert done.returncode == 2 and "in.txt:51: the text is empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_predictions_stream_chunk_by_chunk_with_few_programs_and_as_one_by_one(run, monkeypatch):
    model, layout = modes.load_trained(recorded.get_config(str(run / "config.json")), run), layouts.layout("jit")
    programs, original = [], trainers.eval_program
    monkeypatch.setattr(trainers, "eval_program", lambda *args: programs.append(original(*args)) or programs[-1])
    monkeypatch.setattr(predictions, "CHUNK", 64)
    lengths = np.random.default_rng(0).geometric(0.2, 640).clip(1, 25)
    lengths[-1] = 60  # longer than any before
    asked, examples_before = [], sum(type(x) is Examples for x in gc.get_objects())

    def inputs():
        for i, length in enumerate(lengths):
            asked.append(i)
            yield Input(str(i), (" ".join(["word"] * length),), None)

    told = Console(file=io.StringIO(), width=200)
    stream = predictions.stream(model, layout, inputs(), told)
    rows = [next(stream)]
    assert len(asked) == 64, "no more than a chunk is read ahead"
    rows += stream
    assert len(rows) == len(lengths) and [row["id"] for row in rows] == [str(i) for i in asked]
    assert sum(type(x) is Examples for x in gc.get_objects()) <= examples_before + 2, "chunks that are done are let go"
    assert programs[0].compilations < 10
    assert told.file.getvalue().count("\n") == 1 and "cut to max_length=32 tokens" in told.file.getvalue()
    alone = next(predictions.stream(model, layout, iter([Input("0", (" ".join(["word"] * int(lengths[0])),), None)])))
    assert alone["probabilities"] == pytest.approx(rows[0]["probabilities"], abs=2e-3)
