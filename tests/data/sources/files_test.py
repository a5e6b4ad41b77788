"""Data files: texts are read exactly, and errors are one line that names the file and the line."""

import gzip
import io
import json
import sys

import pytest

from research.data import examples, inputs, loading
from research.tasks.classification import Classification

BINARY = Classification("binary", labels=("neg", "pos"))
PAIRS = Classification("pairs", texts=("text_a", "text_b"), labels=("no", "yes"))


def table(rows, header="text\tlabel"):
    return "\n".join([header, *("\t".join(row) for row in rows)]) + "\n"


def load(folder, task=BINARY, **request):
    return loading.load(task, source="files", path=str(folder), **request)


def test_columns_are_found_by_name_in_any_order_beside_others(folder):
    (folder / "test.tsv").write_text(table([("pos", "x", "fine")], "label\textra\ttext"))
    assert load(folder).splits["test"].texts == (("fine",),)


def test_pairs_have_two_texts(tmp_path):
    for split in ("train", "dev", "test"):
        (tmp_path / f"{split}.tsv").write_text(table([("a", "b", "no"), ("c", "d", "yes")], "text_a\ttext_b\tlabel"))
    assert load(tmp_path, PAIRS).splits["dev"].texts == (("a", "b"), ("c", "d"))


def test_gzipped_tables_and_json_lines_read_like_plain_tables(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    (other / "train.tsv.gz").write_bytes(gzip.compress((folder / "train.tsv").read_bytes()))
    rows = [line.split("\t") for line in (folder / "test.tsv").read_text().splitlines()[1:]]
    lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
    (other / "test.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    assert load(other).fingerprint == load(folder).fingerprint


@pytest.mark.parametrize("odd", ["\x85", "\u2028", "\x0c", '"', "'"])
def test_only_line_feeds_and_tabs_separate(folder, odd):
    (folder / "test.tsv").write_bytes(table([(f"one{odd}two", "pos")]).encode())
    assert load(folder).splits["test"].texts == ((f"one{odd}two",),)


def test_windows_line_ends_and_a_byte_order_mark_are_removed(folder):
    (folder / "test.tsv").write_bytes(b"\xef\xbb\xbf" + table([("fine", "pos")]).replace("\n", "\r\n").encode())
    assert load(folder).splits["test"].texts == (("fine",),) and load(folder).splits["test"].labels == ("pos",)


@pytest.mark.parametrize("path", ["", "/no/such/folder"])
def test_a_path_that_is_no_folder_is_refused_with_the_flag(refused, path):
    refused(lambda: load(path), repr(path), "--config.data.path=FOLDER")


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_missing_split_is_an_error_that_lists_the_files(refused, folder, split):
    (folder / f"{split}.tsv").rename(folder / f"{split}.csv")
    refused(lambda: load(folder), str(folder), f"no {split} split", f"{split}.csv")


@pytest.mark.parametrize("name", ["validation.tsv", "valid.tsv", "val.tsv.gz", "dev.tsv"])
def test_a_dev_split_may_have_several_names(folder, name):
    content = table([("odd", "pos"), ("even", "neg")]).encode()
    (folder / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    data = load(folder)
    assert data.splits["dev"].texts == (("odd",), ("even",)) and len(data.splits["train"]) == 80
    assert not any(note.startswith("not read") or note.endswith("cut from train") for note in data.notes)


def test_two_names_of_one_split_are_refused(refused, folder):
    for name in ("dev.tsv", "valid.jsonl"):
        (folder / name).write_text(table([("odd", "pos")]))
    refused(lambda: load(folder), "several files for the dev split", "dev.tsv and valid.jsonl")


def test_files_that_are_not_read_are_named(folder):
    for name in ("validation.csv", "train2.tsv", "meta.json", ".hidden"):
        (folder / name).write_text("x")
    (folder / "more").mkdir()
    assert "not read: meta.json, train2.tsv, validation.csv" in load(folder).notes


def test_a_split_in_two_formats_is_refused(refused, folder):
    (folder / "test.jsonl").write_text("{}")
    refused(lambda: load(folder), "test.tsv and test.jsonl")


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        ("text\tlabel\nfine\tpos\nfine\n", ["test.tsv:3", "fields: 1", "2 (text, label)"]),
        ("text\tlabel\nfine\tpos\tx\n", ["test.tsv:2", "fields: 3"]),
        ("text\tlabel\nfine\tpos\n\nfine\tpos\n", ["test.tsv:3", "fields: 1"]),
        ("text\tlabel\nfine\tpos\n  \tneg\n", ["test.tsv:3", "the text is empty"]),
        ("text\tlabel\nfine\tpos\nfine\tnge\n", ["test.tsv:3", "'nge'", "did you mean 'neg'?"]),
        ("text\tlabel\nfine\t\n", ["test.tsv:2", "''", "neg, pos"]),
        ("text\tlabels\nfine\tpos\n", ["test.tsv:1", "'label'", "did you mean 'labels'?"]),
        ("text\tlabel\tlabel\nfine\tpos\tneg\n", ["test.tsv:1", "2 columns", "'label'"]),
        ("text\tlabel\n", ["test.tsv", "only a header"]),
        ("", ["test.tsv", "empty"]),
        (b"text\tlabel\nfine\tpos\nf\xe9\tpos\n", ["test.tsv:3", "0xe9", "UTF-8"]),
    ],
)
def test_a_bad_table_is_refused_at_its_line(refused, folder, content, pieces):
    (folder / "test.tsv").write_bytes(content if isinstance(content, bytes) else content.encode())
    refused(lambda: load(folder), str(folder), *pieces)


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ('{"text": "fine"', ["not JSON"]),
        ('["fine", "pos"]', ["not a JSON object"]),
        ("", ["not JSON"]),
        ('{"txt": "fine", "label": "pos"}', ["no field 'text'", "did you mean 'txt'?"]),
        ('{"text": 3, "label": "pos"}', ["3", "not a string"]),
        ('{"text": "fine", "label": null}', ["null", "not a string"]),
        ('{"text": "\\ud800", "label": "pos"}', ["surrogate"]),
        ('{"text": "fine", "label": "\\udc00"}', ["the label has half of a surrogate"]),
        ("[" * 200_000, ["nested too deeply"]),
        ('{"text": ' + "[" * 200_000 + "]" * 200_000 + ', "label": "pos"}', ["nested too deeply"]),
        ('{"text": ' + "[" * 700 + "]" * 700 + ', "label": "pos"}', ["a list", "not a string"]),
        ('{"text": "fine", "label": ' + "1" * 5000 + "}", ["4300 digits"]),
        ('{"text": "fine", "label": NaN}', ["NaN", "not a string"]),
        ('{"text": "fine", "label": {"a": 1}}', ["an object", "not a string"]),
    ],
)
def test_bad_json_lines_are_refused_at_their_line(refused, folder, line, pieces):
    (folder / "dev.jsonl").write_text(f'{{"text": "fine", "label": "pos"}}\n{line}\n')
    refused(lambda: load(folder), "dev.jsonl:2", *pieces)


@pytest.mark.parametrize("cut", [10, -4])
def test_an_incomplete_gzip_file_is_refused(refused, folder, cut):
    compressed = gzip.compress((folder / "test.tsv").read_bytes())
    (folder / "test.tsv").unlink()
    (folder / "test.tsv.gz").write_bytes(compressed[:cut])
    refused(lambda: load(folder), "test.tsv.gz", "not a complete gzip file")
    (folder / "test.tsv.gz").write_bytes(b"text\tlabel\n")
    refused(lambda: load(folder), "test.tsv.gz", "not a complete gzip file")


def test_inputs_are_read_from_every_format(tmp_path):
    (tmp_path / "in.txt").write_text("one\x85\ntwo\n")
    (tmp_path / "in.tsv").write_text("id\ttext\nx\tone\ny\ttwo\n")
    (tmp_path / "in.jsonl").write_text('{"text": "one", "label": "pos"}\n{"text": "two", "label": "neg", "id": 7}')
    read = {kind: inputs.read_inputs(str(tmp_path / f"in.{kind}"), BINARY) for kind in ("txt", "tsv", "jsonl")}
    assert read["txt"] == examples.Examples(("0", "1"), (("one\x85",), ("two",)), ())
    assert read["tsv"] == examples.Examples(("x", "y"), (("one",), ("two",)), ())
    assert read["jsonl"] == examples.Examples(("0", "7"), (("one",), ("two",)), ("pos", "neg"))


@pytest.mark.parametrize(
    ("task", "content", "texts"),
    [
        (BINARY, "text\nplain line\n", (("text",), ("plain line",))),
        (BINARY, "text\tlabel\nfine\tpos\n", (("fine",),)),
        (BINARY, '{"text": "fine"}\n', (("fine",),)),
        (PAIRS, "text_a\ttext_b\na\tb\n", (("a", "b"),)),
    ],
)
def test_the_format_of_standard_input_is_detected_by_its_first_line(monkeypatch, task, content, texts):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert inputs.read_inputs("-", task).texts == texts


@pytest.mark.parametrize(
    ("name", "content", "task", "pieces"),
    [
        ("in.txt", "", BINARY, ["in.txt", "empty"]),
        ("in.txt", "one\n\ntwo\n", BINARY, ["in.txt:2", "empty"]),
        ("in.txt", "one\n", PAIRS, ["text_a and text_b", ".tsv or .jsonl"]),
        ("in.tsv", "txt\none\n", BINARY, ["in.tsv:1", "'text'", "did you mean 'txt'?"]),
        ("in.tsv", "id\ttext\nx\tone\nx\ttwo\n", BINARY, ["in.tsv:3", "'x'", "in.tsv:2"]),
        ("in.jsonl", '{"text": "a", "label": "pos"}\n{"text": "b"}', BINARY, ["in.jsonl:2", "'label'"]),
        ("in.jsonl", '{"text": "a"}\n' + "[" * 200_000, BINARY, ["in.jsonl:2", "nested too deeply"]),
        ("in.jsonl", '{"text": "a", "id": "\\ud800"}', BINARY, ["in.jsonl:1", "the id has half of a surrogate"]),
        ("in.csv", "text\none\n", BINARY, ["in.csv", "'.csv'", "did you mean '.tsv'?"]),
    ],
)
def test_bad_inputs_are_refused_at_their_line(refused, tmp_path, name, content, task, pieces):
    (tmp_path / name).write_text(content)
    refused(lambda: inputs.read_inputs(str(tmp_path / name), task), *pieces)


def test_a_missing_input_is_refused(refused, tmp_path):
    refused(lambda: inputs.read_inputs(str(tmp_path / "in.txt"), BINARY), "in.txt", "no such file")
