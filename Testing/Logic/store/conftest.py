"""Fixtures of the tests of downloads and of the store."""

import random

import pytest

from download_cases import CONTENT
from loopback_server import LoopbackServer
from MIMSegment.Logic.store import PackageStore
from store_cases import entry_for, validate, write_package, zipped


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def store(tmp_path):
    return PackageStore(tmp_path / "store", validate, bundled=tmp_path / "bundled")


@pytest.fixture
def served(tmp_path):
    """A server of a package's zip file and the catalog entry for it."""
    network = random.Random(0).randbytes(400_000)
    archive = zipped(write_package(tmp_path / "source", network=network), top="liver-1.0.0")
    with LoopbackServer(archive.read_bytes()).running() as server:
        yield server, entry_for(archive, server.url())


@pytest.fixture
def server():
    with LoopbackServer(CONTENT).running() as running:
        yield running


@pytest.fixture
def target(tmp_path):
    return tmp_path / "downloads" / "package.zip"
