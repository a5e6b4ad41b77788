"""Class names: order, surrounding blanks, and names that look alike."""

import pytest

from research.data import inputs, loading
from research.tasks import names
from research.tasks.classification import Classification

OPEN = Classification("open")


def load(folder, task=OPEN, **request):
    return loading.load(task, source="files", path=str(folder), **request)


def write(path, *names):
    """Write a table of eight examples for each label."""
    path.write_text("text\tlabel\n" + "".join(f"text {k} of {i}\t{name}\n" for k in range(8) for i, name in enumerate(names)))


@pytest.mark.parametrize(
    ("order", "alphabetical"),
    [
        ("0 1 2 10 11", "0 1 10 11 2"),
        ("LABEL_0 LABEL_2 LABEL_10", "LABEL_0 LABEL_10 LABEL_2"),
        ("-2 -1 0 1", "-1 -2 0 1"),
        ("-0.5 .25 1.5 10", "-0.5 .25 1.5 10"),
        ("a a2b a10b b", "a a10b a2b b"),
        ("01 1 02 2", "01 02 1 2"),
        ("ham spam", "ham spam"),
        (f"x{'1' * 4999} x{'1' * 5000}", f"x{'1' * 4999} x{'1' * 5000}"),
    ],
)
def test_numbers_in_labels_are_ordered_by_value(order, alphabetical):
    assert names.in_order(reversed(alphabetical.split())) == tuple(order.split())
    assert sorted(order.split()) == alphabetical.split()


def test_integer_labels_of_a_folder_are_numbered_by_their_value(tmp_path):
    for split in ("train", "dev", "test"):
        write(tmp_path / f"{split}.tsv", *map(str, range(12)))
    assert load(tmp_path).task.classes == tuple(map(str, range(12)))


@pytest.mark.parametrize("blank", [" ", "  ", "\u00a0", "\u3000", "\x0b"])
@pytest.mark.parametrize("place", ["ham{}", "{}ham"])
def test_blanks_around_labels_are_removed_and_counted(tmp_path, blank, place):
    write(tmp_path / "train.tsv", "ham", place.format(blank), "spam")
    write(tmp_path / "test.tsv", "ham", "spam")
    data = load(tmp_path)
    assert data.task.classes == ("ham", "spam")
    assert "blanks around labels were removed: 8 ('ham' 8)" in data.notes
    write(tmp_path / "train.tsv", "ham", "ham", "spam")
    clean = load(tmp_path)
    assert clean.fingerprint == data.fingerprint and not any(note.startswith("blanks") for note in clean.notes)


def test_blanks_around_the_labels_of_tasks_and_inputs_are_removed(tmp_path):
    write(tmp_path / "train.tsv", "neg ", "pos")
    write(tmp_path / "test.tsv", "neg", " pos")
    assert load(tmp_path, Classification("binary", labels=("neg", "pos"))).task.classes == ("neg", "pos")
    assert set(inputs.read_inputs(str(tmp_path / "test.tsv"), OPEN).labels) == {"neg", "pos"}


@pytest.mark.parametrize(
    "other", ["Ham", "ham\u200b", "\ufeffham", "h\u00adam", "\uff48\uff41\uff4d", "ham\ufe0f", "HAM", "ha\u200dm", "\u202aham\u202c"]
)
def test_labels_that_look_alike_are_a_warning_with_their_names(tmp_path, other):
    write(tmp_path / "train.tsv", "ham", other, "spam")
    write(tmp_path / "test.tsv", "ham", "spam")
    data = load(tmp_path)
    (warning,) = (note for note in data.notes if note.startswith("warning"))
    assert "'ham'" in warning and ascii(other) in warning and "'spam'" not in warning
    assert len(data.task.classes) == 3  # the labels are reported, not changed


def test_unicode_forms_and_kinds_of_blanks_look_alike():
    assert names.lookalikes(["caf\u00e9", "cafe\u0301", "cafe"]) == [("caf\u00e9", "cafe\u0301")]
    assert names.lookalikes(["not  spam", "not spam", "not\u00a0spam"]) == [("not  spam", "not spam", "not\u00a0spam")]
    assert names.lookalikes(["1", "-1", "01", "ham", "spam", "not_spam"]) == []


def test_the_classes_and_their_counts_are_described(folder):
    first, second = load(folder).notes
    assert first == f"data: files:{folder}: train 72, dev 8, test 20 examples, dev is cut from train"
    assert second == "2 classes (examples in train/dev/test): neg 54/6/15, pos 18/2/5"
    write(folder / "train.tsv", *(f"c{i}" for i in range(30)))
    write(folder / "test.tsv", "c1")
    assert load(folder).notes[1].startswith("30 classes (examples in train/dev/test): c0 8/0/0, c1 7/1/8, c2 ")
    assert load(folder).notes[1].endswith("c23 7/1/0 and 6 more")


@pytest.mark.parametrize("task", [OPEN, Classification("binary", labels=("ham", "spam"))])
def test_a_single_class_is_refused(refused, tmp_path, task):
    for split in ("train", "test"):
        write(tmp_path / f"{split}.tsv", "ham")
    refused(lambda: load(tmp_path, task), str(tmp_path), "7 training examples", "all of one class ('ham')", "two or more")
    write(tmp_path / "train.tsv", "ham", "spam")
    assert len(load(tmp_path, task).task.classes) == 2
    refused(lambda: load(tmp_path, task, train_examples=1), "1 training examples, all of one class")
