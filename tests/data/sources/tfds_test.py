"""TFDS: a prepared directory is read without TensorFlow, and unavailable data are one error line."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from research.data import loading
from research.data.sources import tfds
from research.tasks import catalog
from research.tasks.base import Tfds
from research.tasks.classification import Classification

BUILDER = """
import sys
import tensorflow_datasets as tfds

class MadeUp(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {"title": tfds.features.Text(), "text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=["bad", "good"])}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, manager):
        return {"train": self._generate_examples(40), "test": self._generate_examples(10), "hidden": self._generate_examples(3, -1)}

    def _generate_examples(self, size, label=None):
        for i in range(size):
            yield i, {"title": f"title {i}", "text": f"caf\u00e9 {i}", "label": i % 2 if label is None else label}

MadeUp(data_dir=sys.argv[1]).download_and_prepare(file_format="array_record")
assert "tensorflow" not in sys.modules
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Return a TFDS directory of array_record files. Another process prepares it, so this one knows only the files."""
    folder = tmp_path_factory.mktemp("tfds")
    (folder / "builder.py").write_text(BUILDER)
    subprocess.run([sys.executable, str(folder / "builder.py"), str(folder / "data")], check=True, capture_output=True, timeout=120)
    return str(folder / "data")


def made_up(labels=("neg", "pos"), texts=("text",), label="label", **splits):
    return Classification("made_up", labels=labels, tfds=Tfds("made_up", texts, label, splits or {"train": "train", "test": "test"}))


def test_a_prepared_tfds_directory_is_read_without_tensorflow(prepared):
    data = loading.load(made_up(), source="tfds", path=prepared)
    assert data.source == "tfds:made_up:1.2.0" and data.task.classes == ("neg", "pos")
    assert {split: len(examples) for split, examples in data.splits.items()} == {"train": 36, "dev": 4, "test": 10}
    test = data.splits["test"]
    assert sorted(test.texts) == sorted((f"café {i}",) for i in range(10)) and test.ids[0] == "test-0"
    assert all(label == data.task.classes[int(text.split()[1]) % 2] for (text,), label in zip(test.texts, test.labels, strict=True))
    assert "tensorflow" not in sys.modules


def test_a_task_without_labels_gets_the_names_of_tfds_and_columns_are_joined(prepared):
    data = loading.load(made_up(labels=(), texts=("title", "text"), train="train", dev="test", test="test"), source="tfds", path=prepared)
    assert data.task.classes == ("bad", "good")
    assert ("title 3 café 3",) in data.splits["dev"].texts


@pytest.mark.parametrize(
    ("task", "pieces"),
    [
        (made_up(train="train", test="hidden"), ["split 'hidden', row 0", "label -1"]),
        (made_up(train="train", test="tests"), ["'tests'", "did you mean 'test'?"]),
        (made_up(labels=("a", "b", "c")), ["2 classes (bad, good)", "'made_up' has 3"]),
        (made_up(texts=("txt",)), ["no column 'txt'", "did you mean 'text'?"]),
        (made_up(label="title"), ["'title' is not a class label"]),
        (Classification("binary"), ["'binary' names no TFDS data set", "binary.py:demo"]),
    ],
)
def test_splits_columns_and_labels_that_tfds_lacks_are_refused(refused, prepared, task, pieces):
    refused(lambda: loading.load(task, source="tfds", path=prepared), *pieces)


@pytest.fixture
def offline(monkeypatch):
    def unreachable(*_, **__):
        raise OSError("the network is unreachable")

    monkeypatch.setattr("socket.getaddrinfo", unreachable)


@pytest.mark.parametrize("name", ["imdb", "mrpc"])
def test_without_a_network_the_error_names_flags_that_work_offline(refused, offline, tmp_path, name):
    pieces = f"--config=configs/{name}.py:data=files --config.data.path=FOLDER", f"--config=configs/{name}.py:demo"
    refused(lambda: loading.load(catalog.get(name), source="tfds", path=str(tmp_path)), *pieces)


def test_a_download_fails_early_if_no_host_answers(offline):
    with pytest.raises(ConnectionError, match="no answer from a.example, b.example"):
        tfds._ask_hosts(SimpleNamespace(url_infos={"https://a.example/x": 1, "https://a.example/y": 1, "https://b.example/x": 1}))
    tfds._ask_hosts(SimpleNamespace(url_infos=None))


def test_an_unknown_tfds_name_is_refused_in_one_line(refused, tmp_path):
    refused(lambda: loading.load(made_up(), source="tfds", path=str(tmp_path)), "tfds made_up", str(tmp_path), "made_up.py:demo")
