"""What is unsafe, damaged, cut or has no room is never installed, and a sentence says why."""

import os
import random
import subprocess
import sys
import time
import zipfile
from types import SimpleNamespace

import pytest

from loopback_server import Answer, LoopbackServer
from MIMSegment.Logic.errors import Cancelled, OutputError, PackageError
from MIMSegment.Logic.store import PackageStore
from store_cases import INSTALLED, ROOT, contents, entry_for, validate, write_package, zipped
from waiting import wait_until


def test_a_failed_download_installs_nothing(store, served):
    server, entry = served
    server.script["/package.zip"] = [Answer(status=404)]
    with pytest.raises(PackageError, match="HTTP 404"):
        store.install(entry)
    assert contents(store) == []
    assert store.installed() == []


def test_a_package_that_does_not_validate_is_not_installed_and_not_kept(store, tmp_path):
    archive = zipped(write_package(tmp_path / "bad", network=b""))
    with (
        LoopbackServer(archive.read_bytes()).running() as server,
        pytest.raises(PackageError, match=r"was not installed.*model\.onnx is missing"),
    ):
        store.install(entry_for(archive, server.url()))
    assert contents(store) == []
    with pytest.raises(PackageError, match=r"bad\.zip was not installed") as caught:
        store.import_file(archive)
    assert ".staging" not in str(caught.value)
    assert contents(store) == []


def test_a_file_that_is_another_package_than_the_catalog_says_is_refused(store, tmp_path):
    archive = zipped(write_package(tmp_path / "other", id="spleen"))
    with (
        LoopbackServer(archive.read_bytes()).running() as server,
        pytest.raises(PackageError, match=r"lists as liver@1\.0\.0 is spleen@1\.0\.0"),
    ):
        store.install(entry_for(archive, server.url()))
    assert contents(store) == []


@pytest.mark.parametrize(
    ("id", "version"),
    [("../liver", "1.0"), ("liver.", "1.0"), ("nul", "1.0"), ("liver", "../1"), ("liver", "None"),
     ("", "1.0"), ("Liver", "1.0")],
)  # fmt: skip
def test_a_package_whose_name_is_no_safe_folder_is_refused(store, tmp_path, id, version):
    with pytest.raises(PackageError, match="cannot be the name of a folder"):
        store.import_file(write_package(tmp_path / "package", id, version))
    assert contents(store) == []
    assert sorted(os.listdir(tmp_path)) == ["package", "store"]


@pytest.mark.parametrize("name", ["../evil.txt", "/tmp/evil.txt", "C:\\evil.txt", "a/../../e"])
def test_a_zip_whose_names_lead_elsewhere_installs_nothing(store, tmp_path, name):
    archive = zipped(write_package(tmp_path / "p"))
    with zipfile.ZipFile(archive, "a") as content:
        info = zipfile.ZipInfo("x")
        info.filename = info.orig_filename = name
        content.writestr(info, b"evil")
    with pytest.raises(PackageError, match=r"p\.zip is not safe to unpack"):
        store.import_file(archive)
    assert contents(store) == []
    assert sorted(os.listdir(tmp_path)) == ["p", "p.zip", "store"]


def test_what_is_no_package_is_refused_with_what_to_choose(store, tmp_path):
    (tmp_path / "photo.zip").write_bytes(b"no zip at all")
    (tmp_path / "empty").mkdir()
    write_package(tmp_path / "two" / "a")
    write_package(tmp_path / "two" / "b")
    for name, words in (
        ("nothing.zip", "does not exist"),
        ("photo.zip", "no zip file, or a damaged one"),
        ("empty", "has no configs/metadata.json"),
        ("two", "holds several packages"),
    ):
        with pytest.raises(PackageError, match=words):
            store.import_file(tmp_path / name)
    truncated = zipped(write_package(tmp_path / "p"))
    truncated.write_bytes(truncated.read_bytes()[:-10])
    with pytest.raises(PackageError, match="damaged"):
        store.import_file(truncated)
    assert store.installed() == []


def test_a_failed_replacement_brings_the_old_version_back(store, tmp_path, monkeypatch):
    network = store.import_file(write_package(tmp_path / "old")) / "models" / "model.onnx"
    new = write_package(tmp_path / "new", network=b"new")
    real, calls = os.replace, []

    def fails_the_second_time(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr("os.replace", fails_the_second_time)
    with pytest.raises(OutputError, match="Input/output error"):
        store.import_file(new, replace=True)
    assert network.read_bytes() == b"network"
    assert contents(store) == INSTALLED


def test_what_a_crash_left_is_cleaned_at_the_next_installation(store, tmp_path):
    leftover = store.location() / ".staging" / "deadbeef" / "content"
    write_package(leftover)
    downloads = store.location() / ".downloads"
    downloads.mkdir()
    for name, days in (("old@1.0.zip.part", 40), ("recent@1.0.zip.part", 2)):
        (downloads / name).write_bytes(b"part")
        then = time.time() - days * 24 * 3600
        os.utime(downloads / name, (then, then))
    assert store.installed() == []
    archive = zipped(write_package(tmp_path / "p"))
    with LoopbackServer(archive.read_bytes()).running() as server:
        store.install(entry_for(archive, server.url()))
    assert contents(store) == [".downloads/recent@1.0.zip.part", *INSTALLED]


def test_an_installer_that_is_killed_leaves_no_lock_and_no_package(store, served, tmp_path):
    server, entry = served
    server.script["/package.zip"] = [Answer(stall_after=100_000)]
    code = (
        "import sys\n"
        "from MIMSegment.Logic.catalog import CatalogEntry, CatalogInput\n"
        "from MIMSegment.Logic.store import PackageStore\n"
        f"entry = {entry!r}\n"
        f"PackageStore({str(store.location())!r}).install(entry)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    part = store.location() / ".downloads" / "liver@1.0.0.zip.part"

    def has_stalled():
        assert child.poll() is None
        return part.exists() and part.stat().st_size == 100_000

    wait_until(has_stalled)
    with pytest.raises(Cancelled, match="another installation"):
        store.install(entry, cancel=lambda: True)
    child.kill()
    child.wait()
    assert store.installed() == []
    store.install(entry)
    assert contents(store) == INSTALLED
    assert server.requests[-1].range == "bytes=100000-"


def test_too_little_space_is_said_before_the_download(store, served, monkeypatch):
    server, entry = served
    usage = SimpleNamespace(free=entry.size_bytes + 1000)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(OutputError, match=r"liver@1\.0\.0 needs 80\d kB .* only 40\d kB free"):
        store.install(entry)
    assert server.requests == []


def test_a_disk_that_is_full_is_an_error_and_nothing_is_half_installed(
    tmp_path, mounted, monkeypatch
):
    disk = mounted("size=1m")
    store = PackageStore(disk / "store", validate)
    big = write_package(tmp_path / "big", network=random.Random(0).randbytes(2_000_000))
    with pytest.raises(OutputError, match=r"only .* free"):
        store.import_file(big)
    # The space is there when it is measured and gone when it is used.
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=10**9))
    for source in (big, zipped(big)):
        with pytest.raises(OutputError, match="No space left on device"):
            store.import_file(source)
    assert contents(store) == []
    assert store.installed() == []


def test_a_read_only_store_is_explained_and_still_readable(tmp_path, mounted, served):
    disk = mounted("size=4m")
    store = PackageStore(disk, validate)
    path = store.import_file(write_package(tmp_path / "p", id="spleen"))
    mounted("ro")
    for action in (
        lambda: store.install(served[1]),
        lambda: store.import_file(write_package(tmp_path / "q")),
        lambda: store.remove("spleen"),
    ):
        with pytest.raises(OutputError, match=r"Read-only file system.*MIMSEGMENT_HOME"):
            action()
    assert store.find("spleen") == path


def test_a_store_that_cannot_be_made_is_explained(tmp_path, served):
    (tmp_path / "file").write_text("")
    store = PackageStore(tmp_path / "file" / "store", validate)
    assert store.installed() == []
    for action in (
        lambda: store.install(served[1]),
        lambda: store.licenses.acknowledge(served[1]),
    ):
        with pytest.raises(OutputError, match="Not a directory"):
            action()
