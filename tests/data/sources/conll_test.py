"""CoNLL columns and lists of words and tags: read as they are, and refused with the file and the line."""

import gzip
import json

import pytest

from research.data import inputs, loading
from research.tasks.classification import Classification
from research.tasks.tagging import Tagging

TASK = Tagging("tags")
TRAIN = "-DOCSTART- -X- O\n\nAda NNP B-PER\nLovelace NNP I-PER\nsees VBZ O\n\n\n-DOCSTART- -X- O\n\nParis NNP B-LOC\n\nIt PRP O\n"
TEST = "Ada\tB-PER\nwaves\tO\n\nParis\tB-LOC\n"


@pytest.fixture
def tagged(tmp_path):
    (tmp_path / "train.conll").write_text(TRAIN)
    (tmp_path / "dev.conll.gz").write_bytes(gzip.compress(TRAIN.encode()))
    (tmp_path / "test.txt").write_text(TEST)
    return tmp_path


def load(folder, task=TASK, **request):
    return loading.load(task, source="files", path=str(folder), **request)


def test_sentences_are_words_with_their_tags_and_document_lines_are_none(tagged):
    data = load(tagged)
    assert data.splits["train"].texts == (("Ada Lovelace sees",), ("Paris",), ("It",)) == data.splits["dev"].texts
    assert data.splits["train"].labels == (("B-PER", "I-PER", "O"), ("B-LOC",), ("O",))
    assert data.splits["test"].texts == (("Ada waves",), ("Paris",)) and data.task.classes == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
    assert data.notes[1] == "5/5/3 words; 2 types of entities (counts in train/dev/test): LOC 1/1/1, PER 1/1/1"
    assert not any(note.startswith("tags rewritten") for note in data.notes)


def test_windows_line_ends_a_byte_order_mark_and_other_blanks_in_words(tagged):
    (tagged / "test.txt").write_bytes("\ufeffA\u00a0b \t B-PER \r\n\r\n \t\r\nc\u2028d O\r\n".encode())
    assert load(tagged).splits["test"].texts == (("A\u00a0b",), ("c\u2028d",))


def test_json_lines_have_lists_of_words_and_tags(tagged):
    (tagged / "test.txt").unlink()
    rows = [{"tokens": ["Ada", "waves"], "tags": ["B-PER", "O"]}, {"tokens": ["Paris"], "tags": ["B-LOC"]}]
    (tagged / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = load(tagged)
    assert data.splits["test"].texts == (("Ada waves",), ("Paris",)) and data.splits["test"].labels == (("B-PER", "O"), ("B-LOC",))


@pytest.mark.parametrize(
    "row, complaint",
    [
        ({"tokens": ["Ada"], "tags": ["B-PER", "O"]}, "1 words but 2 tags"),
        ({"tokens": ["Ada L.", "x"], "tags": ["B-PER", "O"]}, "the word 'Ada L.' is empty or has a blank"),
        ({"tokens": ["", "x"], "tags": ["O", "O"]}, "the word '' is empty"),
        ({"tokens": ["Ada", 1], "tags": ["O", "O"]}, "the words are not a list of strings"),
        ({"tokens": ["Ada"], "tags": "O"}, "the tags are not a list of strings"),
        ({"tokens": ["Ada"]}, "no field 'tags'"),
        ({"tokens": ["Ada"], "tags": ["B-GOD"]}, "tag 'B-GOD' is not in train"),
        ({"tokens": ["\udc80"], "tags": ["O"]}, "half of a surrogate pair"),
    ],
)
def test_rows_that_are_no_words_with_tags_are_refused_with_their_line(refused, tagged, row, complaint):
    (tagged / "test.txt").unlink()
    good = {"tokens": ["Ada"], "tags": ["B-PER"]}
    (tagged / "test.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    refused(lambda: load(tagged), "test.jsonl:2: ", complaint)


@pytest.mark.parametrize(
    "content, pieces",
    [
        ("Ada NNP B-PER\nwaves O\n", ("test.txt:2: ", "columns: 2, where the first line has 3", "'waves O'")),
        ("Ada B-PER\nwaves\n", ("test.txt:2: ", "columns: 1, where the first line has 2")),
        ("\n\nAda\nwaves\n", ("test.txt:3: ", "one column")),
        ("-DOCSTART- O\n", ("test.txt", "no sentences")),
        ("Ada O\n\n\n-DOCSTART- O\n\nBob O\nruns I-GOD\n", ("test.txt:6: ", "tag 'B-GOD' is not in train; did you mean")),
        ("\u3000 O\n", ("test.txt:1: ", "the text is empty")),
    ],
)
def test_lines_that_cannot_be_used_are_named(refused, tagged, content, pieces):
    (tagged / "test.txt").write_text(content)
    refused(lambda: load(tagged), *pieces)


def test_other_schemes_are_converted_and_repairs_are_counted(tagged):
    (tagged / "train.conll").write_text("Ada I-PER\nByron I-PER\nsees O\n\nAda S-PER\nParis I-LOC\n")
    data = load(tagged)
    assert data.splits["train"].labels == (("B-PER", "I-PER", "O"), ("B-PER", "B-LOC"))
    assert "tags rewritten in IOB2: 3 (I-PER as B-PER 1, S-PER as B-PER 1, I-LOC as B-LOC 1)" in data.notes


def test_tags_without_prefixes_are_used_as_they_are_but_not_among_others(refused, tagged):
    for name in ("train.conll", "test.txt"):
        (tagged / name).write_text("Ada NNP\nsees VBZ\n\nIt NNP\nis VBZ\n")
    (tagged / "dev.conll.gz").unlink()
    data = load(tagged, dev_fraction=0.5)
    assert data.task.classes == ("NNP", "VBZ") and not data.task.has_entities
    (tagged / "train.conll").write_text("Ada B-PER\n\nParis LOC\n")
    refused(lambda: load(tagged), "tag 'LOC' is neither O nor of the form B-TYPE or I-TYPE")
    (tagged / "train.conll").write_text("Ada O\n\nParis O\n")
    (tagged / "test.txt").write_text("Ada O\n")
    refused(lambda: load(tagged, dev_fraction=0.5), "all words of train have the tag 'O'")


def test_augmentation_is_refused(refused, tagged):
    refused(lambda: load(tagged, augment="swap"), "data.augment=swap", "each has its label", "leave it empty")


def test_inputs_are_lines_of_text_columns_or_lists(refused, tmp_path):
    def read(name, content):
        (tmp_path / name).write_text(content)
        detected = inputs.read_inputs(str(tmp_path / name), TASK)
        return detected.texts, detected.labels

    assert read("in.txt", "Ada  Lovelace sees\nIt\n") == ((("Ada  Lovelace sees",), ("It",)), ())
    assert read("in.conll", TEST) == ((("Ada waves",), ("Paris",)), (("B-PER", "O"), ("B-LOC",)))
    assert read("bare.conll", "Ada\nwaves\n\nParis\n") == ((("Ada waves",), ("Paris",)), ())
    assert read("in.jsonl", '{"tokens": ["Ada", "waves"]}\n') == ((("Ada waves",),), ())
    refused(lambda: inputs.read_inputs(str(tmp_path / "in.conll"), Classification("custom")), "does not tag words", "give .txt")
