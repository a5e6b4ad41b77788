"""Loading: splits, classes, subsets and fingerprints depend only on the data and the seed, for every source."""

from collections import Counter

import pytest

from research.data import loading
from research.data.examples import Examples
from research.tasks import catalog
from research.tasks.base import WORD
from research.tasks.classification import Classification
from tests.runs import DATA

OPEN = Classification("open")
BINARY = Classification("binary", labels=("neg", "pos"))


def load(folder, task=BINARY, **request):
    return loading.load(task, source="files", path=str(folder), **request)


def test_a_folder_is_read_in_order(folder):
    (folder / "dev.tsv").write_text("text\tlabel\nfine\tpos\npoor\tneg\n")
    data = load(folder)
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 80, "dev": 2, "test": 20}
    assert data.task.classes == ("neg", "pos") and data.source == f"files:{folder}"
    assert data.splits["train"].ids[:2] == ("train-0", "train-1")
    assert data.splits["test"].texts[1] == ("test text 1",) and data.splits["test"].labels[:2] == ("pos", "neg")


def test_without_task_labels_the_classes_are_the_sorted_training_labels(folder):
    (folder / "train.tsv").write_text("text\tlabel\n" + "a\tz\nb\ty\n" * 10)
    (folder / "test.tsv").write_text("text\tlabel\nc\tz\n")
    assert load(folder, OPEN).task.classes == ("y", "z")


def test_the_dev_cut_keeps_label_proportions_and_all_examples(folder):
    texts = [(f"train text {i}",) for i in range(80)]
    data = load(folder, dev_fraction=0.2)
    train, dev = data.splits["train"], data.splits["dev"]
    assert Counter(dev.labels) == {"neg": 12, "pos": 4} and Counter(train.labels) == {"neg": 48, "pos": 16}
    assert not set(train.ids) & set(dev.ids) and sorted(train.texts + dev.texts) == sorted(texts)
    assert all(examples.texts == tuple(texts[int(name.split("-")[1])] for name in examples.ids) for examples in (train, dev))


def test_the_dev_cut_depends_only_on_the_seed(folder):
    dev = load(folder, seed=1).splits["dev"]
    assert load(folder, seed=1, train_examples=16, eval_examples=8).splits["dev"].ids == dev.ids
    assert load(folder, seed=2).splits["dev"].ids != dev.ids


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0, 0.001])
def test_a_dev_cut_that_leaves_a_split_empty_is_refused(refused, folder, fraction):
    refused(lambda: load(folder, dev_fraction=fraction), "dev_fraction", str(fraction), "80")


def test_subsets_are_seeded_nested_and_in_proportion(folder):
    half, quarter = (load(folder, train_examples=size, dev_fraction=0.2).splits["train"] for size in (32, 16))
    assert Counter(half.labels) == {"neg": 24, "pos": 8} and Counter(quarter.labels) == {"neg": 12, "pos": 4}
    assert set(quarter.ids) < set(half.ids)
    assert load(folder, train_examples=32, dev_fraction=0.2, seed=1).splits["train"].ids != half.ids


def test_eval_examples_limits_dev_and_test_and_not_train(folder):
    sizes = {split: len(examples) for split, examples in load(folder, eval_examples=4).splits.items()}
    assert sizes == {"train": 72, "dev": 4, "test": 4}


@pytest.mark.parametrize("limit", [{"train_examples": 73}, {"train_examples": -1}, {"eval_examples": 9}, {"eval_examples": -2}])
def test_more_examples_than_there_are_is_refused(refused, folder, limit):
    ((field, size),) = limit.items()
    refused(lambda: load(folder, **limit), f"data.{field}={size}", "examples; 0 is all")


def test_the_fingerprint_depends_on_every_text_label_and_class_order(folder):
    before = load(folder).fingerprint
    assert load(folder).fingerprint == before
    original = (folder / "test.tsv").read_text()
    for changed in (original.replace("test text 3", "test text three"), original.replace("text 3\tneg", "text 3\tpos")):
        assert changed != original
        (folder / "test.tsv").write_text(changed)
        assert load(folder).fingerprint != before
    (folder / "test.tsv").write_text(original)
    assert load(folder, Classification("binary", labels=("pos", "neg"))).fingerprint != before


def test_the_raw_fingerprint_does_not_depend_on_limits_or_augmentation(folder):
    raw = load(folder).raw_fingerprint
    others = [load(folder, train_examples=16), load(folder, eval_examples=4), load(folder, seed=1), load(folder, dev_fraction=0.2)]
    others.append(load(folder, augment="swap", augment_rate=0.3, augment_copies=2))
    assert {other.raw_fingerprint for other in others} == {raw}
    assert len({other.fingerprint for other in others}) == len(others)
    (folder / "test.tsv").write_text((folder / "test.tsv").read_text().replace("test text 3", "test text three"))
    changed = load(folder)
    assert changed.raw_fingerprint != raw
    (folder / "dev.tsv").write_text("text\tlabel\nfine\tpos\npoor\tneg\n")
    assert load(folder).raw_fingerprint not in (raw, changed.raw_fingerprint)


def test_take_keeps_ids_texts_and_labels_together():
    examples = Examples(("a", "b", "c"), (("1",), ("2",), ("3",)), ("x", "y", "z"))
    assert examples.take([2, 0]) == Examples(("c", "a"), (("3",), ("1",)), ("z", "x"))
    unlabelled = Examples(("a", "b"), (("1",), ("2",)), ())
    assert unlabelled.take([1]) == Examples(("b",), (("2",),), ()) and len(unlabelled) == 2


def test_an_unknown_source_names_the_nearest(refused):
    refused(lambda: loading.load(BINARY, source="file"), "'file'", "did you mean 'files'?")


def test_test_labels_that_do_not_occur_in_training_are_refused(refused, folder):
    (folder / "test.tsv").write_text("text\tlabel\nfine\tpos\nodd\tneutral\n")
    refused(lambda: load(folder, OPEN), "test.tsv:3", "'neutral'", "neg")


def test_the_demo_uses_the_label_names_of_the_task():
    data = loading.load(BINARY, source="demo")
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 480, "dev": 120, "test": 1000}
    sst2 = loading.load(catalog.get("sst2"), source="demo")
    names = dict(zip(("negative", "positive"), BINARY.labels, strict=True))
    assert data.splits["test"].labels == tuple(names[label] for label in sst2.splits["test"].labels)
    assert loading.load(BINARY, source="demo", seed=5).fingerprint == data.fingerprint != sst2.fingerprint


@pytest.mark.parametrize("name", sorted(catalog.TASKS))
def test_every_task_has_stand_in_data(name):
    task = catalog.get(name)
    data = loading.load(task, source="demo", train_examples=24, eval_examples=12)
    if task.outputs_per == WORD:
        assert data.task.classes == ("O", "B-LONG", "I-LONG") and set(sum(data.splits["train"].labels, ())) == set(data.task.classes)
    else:
        assert len(data.task.classes) == (len(task.labels) or 6) and set(data.splits["train"].labels) == set(data.task.classes)
    assert all(len(texts) == len(task.texts) for texts in data.splits["train"].texts)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "sizes", "classes"),
    [
        ("imdb", "imdb", (22500, 2500, 25000), 2),
        ("sst2", "sst2", (6920, 872, 1821), 2),
        ("trec", "trec6", (4907, 545, 500), 6),
        ("ag_news", "ag_news", (15919, 1769, 7600), 4),
        ("mrpc", "mrpc", (3668, 408, 1725), 2),
    ],
)
def test_the_real_sets_load_in_full(name, folder, sizes, classes):
    data = load(DATA / folder, catalog.get(name))
    assert tuple(len(data.splits[split]) for split in ("train", "dev", "test")) == sizes and len(data.task.classes) == classes
