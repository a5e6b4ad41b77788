"""Reading of examples from TensorFlow Datasets prepared as array_record files. TensorFlow is not needed."""

from typing import Any
from urllib.parse import urlsplit

from research.data.examples import Examples, Raw, rows
from research.errors import InputError, nearest
from research.tasks.base import Task, Tfds

NETWORK_SECONDS = 10.0


def read(task: Task, data_dir: str) -> Raw:
    """Return the splits of a task from `data_dir` ("" is the default of TFDS); download and prepare them if they are missing.

    Raise InputError for a task or column that TFDS does not have, for hidden labels, and if the data cannot be downloaded or prepared.
    """
    if task.tfds is None:
        raise InputError(f"task {task.name!r} names no TFDS data set; {_offline(task)}")
    builder = _prepared(task, data_dir)
    names = _class_names(task, builder)
    splits = {}
    for split, tfds_split in task.tfds.splits.items():
        if tfds_split not in builder.info.splits:
            raise InputError(f"tfds {task.tfds.name}: no split {tfds_split!r}; {nearest(tfds_split, builder.info.splits)}")
        splits[split] = _read_split(task, split, builder.as_data_source(split=tfds_split), names)
    name, _, version = builder.info.full_name.rpartition("/")
    return Raw(splits, lambda split, row: _origin(task.tfds, split, row), f"tfds:{name}:{version}")


def _read_split(task: Task, split: str, source: Any, names: tuple[str, ...]) -> Examples:
    texts, labels = [], []
    for row, record in enumerate(source):
        place = _origin(task.tfds, split, row)
        fields = tuple(_decode(record[field], place) for field in task.tfds.texts)
        texts.append(fields if len(fields) == len(task.texts) else (" ".join(fields),))
        label = int(record[task.tfds.label])
        if not 0 <= label < len(names):
            raise InputError(f"{place}: label {label} is hidden or unknown; choose a split whose labels are public")
        labels.append(names[label])
    return rows(split, texts, labels)


def _prepared(task: Task, data_dir: str) -> Any:
    """Return a TFDS builder whose data are on disk as array_record files."""
    import tensorflow_datasets as tfds
    import tensorflow_datasets.text  # noqa: F401 - registers GLUE, which the main module does not

    # The exception type depends on the source of the data set, so every exception means that the data are not available.
    try:
        builder = tfds.builder(task.tfds.name, data_dir=data_dir or None)
        if not builder.data_path.exists():
            _ask_hosts(builder)
            builder.download_and_prepare(file_format="array_record")
    except Exception as error:
        place = data_dir or "the default data_dir"
        raise InputError(f"tfds {task.tfds.name} is not in {place} and cannot be downloaded ({_why(error)}); {_offline(task)}") from error
    if builder.info.file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        form = builder.info.file_format.value
        raise InputError(f"{builder.data_path}: {form} files need TensorFlow; give another --config.data.path to prepare array_record in")
    return builder


def _ask_hosts(builder: Any) -> None:
    """Raise ConnectionError within seconds if no host of the data answers; TFDS itself would retry for minutes."""
    import requests

    urls = {urlsplit(url).netloc: url for url in builder.url_infos or ()}
    for url in urls.values():
        try:
            requests.head(url, timeout=NETWORK_SECONDS)
            return
        except requests.RequestException:
            continue
    if urls:
        raise ConnectionError(f"no answer from {', '.join(urls)}")


def _class_names(task: Task, builder: Any) -> tuple[str, ...]:
    """Return the class names by number: those of the task, or else those of TFDS. Raise InputError for a missing column."""
    features = builder.info.features
    for column in (*task.tfds.texts, task.tfds.label):
        if column not in features:
            raise InputError(f"tfds {task.tfds.name}: no column {column!r}; {nearest(column, features)}")
    names = getattr(features[task.tfds.label], "names", None)
    if names is None:
        raise InputError(f"tfds {task.tfds.name}: column {task.tfds.label!r} is not a class label")
    if task.labels and len(task.labels) != len(names):
        raise InputError(f"tfds {task.tfds.name} has {len(names)} classes ({', '.join(names)}), task {task.name!r} has {len(task.labels)}")
    return task.labels or tuple(names)


def _decode(text: bytes, place: str) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: byte {error.start} of the text is not UTF-8") from None


def _origin(spec: Tfds, split: str, row: int) -> str:
    return f"tfds {spec.name}, split {spec.splits[split]!r}, row {row}"


def _why(error: Exception) -> str:
    """Return the first line of an error message, cut to 160 characters."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return line if len(line) <= 160 else f"{line[:160]}..."


def _offline(task: Task) -> str:
    config = f"--config=configs/{task.name}.py"
    return f"offline: {config}:data=files --config.data.path=FOLDER, or {config}:demo"
