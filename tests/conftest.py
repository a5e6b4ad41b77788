"""Every test runs on a CPU with one device, as on a user's machine, strict about broadcasting, without a network, with a cache of its own.

Tests with the marker `devices` are about several devices: a session that selects them (`-m devices`) sees eight virtual ones.

Workers side by side each keep to their share of the cores: threads of two that want the same core wait for each other.
"""

import hashlib
import os
import platform
import re
import socket
import sys
from pathlib import Path

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from research import storage
from research.parallel import cpu

os.environ["JAX_PLATFORMS"] = "cpu"

if worker := os.environ.get("PYTEST_XDIST_WORKER"):
    _count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cpu.keep_to(cpu.shares(_count)[int(worker.removeprefix("gw")) % _count])  # one that ended is replaced by one of a higher number

# Compiled programs outlive the session, in a folder for each kind of CPU, since they are machine code.
_cpu = platform.processor() + platform.machine()
if sys.platform == "linux":
    _cpu += "".join(sorted(set(re.findall(r"(?m)^(?:model name|flags|Features)\b.*$", Path("/proc/cpuinfo").read_text()))))
_compiled = storage.folder(f"tests-compiled-{hashlib.sha256(_cpu.encode()).hexdigest()[:12]}")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_compiled))
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.05"

jax.config.update("jax_numpy_rank_promotion", "raise")
hypothesis.settings.register_profile("quick", max_examples=30, deadline=None, database=None, derandomize=True)
hypothesis.settings.load_profile("quick")


def pytest_configure(config):
    """Set the number of devices, before any program runs on them."""
    several = re.search(r"(?<!not )\bdevices\b", config.option.markexpr)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={8 if several else 1}"


def pytest_collection_modifyitems(items):
    """Sort tests that train on real data for many minutes first: started last, they would leave the other core idle."""
    items.sort(key=lambda item: not {"slow", "data"} <= {mark.name for mark in item.iter_markers()})


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory):
    """Set the cache of the tests, and of programs they start, to a folder that is new for each session.

    Only compiled programs are shared by workers, child processes and later sessions: compiling is most of the tests' time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RESEARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_network():
    """Fail a test that connects to another machine: with a RuntimeError, which no code under test takes for a network error."""

    def guarded(name):
        real = getattr(socket.socket, name)

        def call(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1", "localhost"):
                raise RuntimeError(f"a test reached for the network: {address}")
            return real(self, address)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(name))
        yield
