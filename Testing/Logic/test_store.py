"""Installing, importing, finding and removing packages, whatever happens in between."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from loopback_server import Answer, LoopbackServer
from MIMSegment.Logic.catalog import CatalogEntry, CatalogInput
from MIMSegment.Logic.errors import Cancelled, OutputError, PackageError
from MIMSegment.Logic.store import PackageStore, data_home
from tiny_package import write_threshold_package

METADATA = "configs/metadata.json"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def validate(folder):
    """Stands in for ``load_package``: metadata that parse and a network that is not empty."""
    metadata = json.loads((folder / METADATA).read_text())
    model = folder / "models" / "model.onnx"
    if not model.is_file() or not model.stat().st_size:
        raise PackageError(f"{model} is missing or empty.")
    return SimpleNamespace(id=metadata["mimsegment"]["id"], version=metadata["version"])


@pytest.fixture
def store(tmp_path):
    return PackageStore(tmp_path / "store", validate, bundled=tmp_path / "bundled")


def write_package(folder, id="liver", version="1.0.0", network=b"network"):
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    metadata = {"version": version, "mimsegment": {"id": id}}
    (folder / METADATA).write_text(json.dumps(metadata))
    (folder / "models" / "model.onnx").write_bytes(network)
    return folder


def zipped(folder, archive=None, top=""):
    archive = archive or folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as content:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            content.write(path, (Path(top) / path.relative_to(folder)).as_posix())
    return archive


def entry_for(archive, *urls, id="liver", version="1.0.0", **fields):
    data = archive if isinstance(archive, bytes) else archive.read_bytes()
    fields = {"license_acknowledgment": False, **fields}
    return CatalogEntry(
        id=id, version=version, title="Liver", description="d", region="abdomen",
        inputs=(CatalogInput("CT", "CT"),), structures=("Liver",), license="Apache-2.0",
        license_url="https://www.apache.org/licenses/LICENSE-2.0", training_data="none",
        size_bytes=len(data), phantom=False, urls=urls,
        sha256=hashlib.sha256(data).hexdigest(), **fields,
    )  # fmt: skip


@pytest.fixture
def served(tmp_path):
    """A server of a package's zip file and the catalog entry for it."""
    network = random.Random(0).randbytes(400_000)
    archive = zipped(write_package(tmp_path / "source", network=network), top="liver-1.0.0")
    with LoopbackServer(archive.read_bytes()).running() as server:
        yield server, entry_for(archive, server.url())


def contents(store):
    """All files of the store but the locks."""
    files = (p.relative_to(store.location()) for p in store.location().rglob("*") if p.is_file())
    return sorted(p.as_posix() for p in files if p.parts[0] != ".locks")


INSTALLED = [f"liver/1.0.0/{METADATA}", "liver/1.0.0/models/model.onnx"]


def test_install_downloads_checks_and_puts_the_package_in_its_place(store, served):
    server, entry = served
    seen = []
    path = store.install(entry, progress=lambda *p: seen.append(p))
    assert path == store.location() / "liver" / "1.0.0"
    assert contents(store) == INSTALLED
    assert [(p.id, p.version, p.path) for p in store.installed()] == [("liver", "1.0.0", path)]
    assert seen[-1] == (entry.size_bytes, entry.size_bytes)
    assert store.install(entry) == path
    assert len(server.requests) == 1


def test_nothing_is_created_before_the_first_installation(store):
    assert store.installed() == []
    with pytest.raises(PackageError):
        store.find("liver")
    with pytest.raises(PackageError):
        store.remove("liver")
    assert not store.location().exists()


def test_a_damaged_installation_is_replaced_by_installing_again(store, served):
    path = store.install(served[1])
    (path / "models" / "model.onnx").write_bytes(b"")
    store.install(served[1])
    assert (path / "models" / "model.onnx").stat().st_size == 400_000
    assert contents(store) == INSTALLED


def test_a_canceled_install_leaves_only_the_part_and_goes_on_from_it(store, served):
    server, entry = served
    done = [0]
    with pytest.raises(Cancelled):
        store.install(
            entry,
            progress=lambda now, total: done.__setitem__(0, now),
            cancel=lambda: done[0] > 0,
        )
    assert store.installed() == []
    assert contents(store) == [
        ".downloads/liver@1.0.0.zip.part",
        ".downloads/liver@1.0.0.zip.part.json",
    ]
    kept = (store.location() / ".downloads/liver@1.0.0.zip.part").stat().st_size
    store.install(entry)
    assert contents(store) == INSTALLED
    assert server.requests[-1].sent == entry.size_bytes - kept


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


@pytest.mark.parametrize("top", ["", "liver-1.0.0", "Größe 肝臓"])
def test_zip_files_with_and_without_a_top_folder_are_imported(store, tmp_path, top):
    archive = zipped(write_package(tmp_path / "p"), tmp_path / "Modèle – 肝臓.zip", top)
    assert store.import_file(archive) == store.location() / "liver" / "1.0.0"
    assert contents(store) == INSTALLED
    assert archive.exists()


def test_folders_are_imported_and_stay(store, tmp_path):
    folder = write_package(tmp_path / "outer" / "inner")
    for source in (folder, folder.parent, str(folder)):
        assert store.import_file(source) == store.location() / "liver" / "1.0.0"
    assert contents(store) == INSTALLED
    assert (folder / METADATA).exists()


def test_a_store_with_a_long_foreign_name_works(tmp_path):
    store = PackageStore(tmp_path / ("ö" * 100) / ("長い" * 30) / ("x" * 200), validate)
    path = store.import_file(zipped(write_package(tmp_path / "p")))
    assert len(str(path)) > 400
    assert store.find("liver") == path
    store.remove("liver")
    assert store.installed() == []


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


def test_the_same_version_with_other_content_is_kept_unless_replaced(store, tmp_path):
    old = write_package(tmp_path / "old", network=b"old")
    new = write_package(tmp_path / "new", network=b"new")
    network = store.import_file(old) / "models" / "model.onnx"
    with pytest.raises(PackageError, match=r"another package is installed as liver@1\.0\.0"):
        store.import_file(new)
    assert network.read_bytes() == b"old"
    store.import_file(new, replace=True)
    assert network.read_bytes() == b"new"
    assert contents(store) == INSTALLED


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


def test_find_takes_ids_versions_folders_and_zip_files(store, tmp_path):
    for version in ("1.9.0", "1.10.0"):
        store.import_file(write_package(tmp_path / version, version=version))
    newest = store.location() / "liver" / "1.10.0"
    assert store.find("liver") == store.find("LIVER") == store.find("liver@1.10.0") == newest
    assert store.find("liver@1.9.0") == store.location() / "liver" / "1.9.0"
    folder = write_package(tmp_path / "mine", id="mine")
    assert store.find(folder) == store.find(str(folder)) == folder
    archive = zipped(folder)
    assert store.find(str(archive)) == store.find(archive) == store.location() / "mine" / "1.0.0"


def test_find_names_the_nearest_when_it_finds_nothing(store, tmp_path):
    with pytest.raises(PackageError, match="none is installed yet"):
        store.find("liver")
    store.import_file(write_package(tmp_path / "a", id="ct-liver"))
    store.import_file(write_package(tmp_path / "b", id="mr-brain-tumor"))
    with pytest.raises(PackageError, match=r"'ct-livr' .* did you mean ct-liver"):
        store.find("ct-livr")
    with pytest.raises(PackageError, match=r"ct-liver@1\.0\.0"):
        store.find("ct-liver@2.0.0")
    with pytest.raises(PackageError, match="installed are ct-liver, mr-brain-tumor"):
        store.find("xyz")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(PackageError, match=r"notes\.txt is no package"):
        store.find(tmp_path / "notes.txt")


def test_a_name_that_is_installed_and_a_local_folder_must_be_made_clear(
    store, tmp_path, monkeypatch
):
    installed = store.import_file(write_package(tmp_path / "liver"))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PackageError, match=r"write liver@1\.0\.0 or \..liver"):
        store.find("liver")
    assert store.find(f".{os.sep}liver") == Path("liver")
    assert store.find(Path("liver")) == Path("liver")
    assert store.find("liver@1.0.0") == installed
    shutil.rmtree("liver")
    Path("liver").mkdir()
    assert store.find("liver") == installed
    monkeypatch.chdir(store.location())
    assert store.find("liver").samefile(installed)


def test_remove_takes_one_version_or_all_and_leaves_the_rest(store, tmp_path):
    for id, version in (("liver", "1.0"), ("liver", "2.0"), ("spleen", "1.0")):
        store.import_file(write_package(tmp_path / f"{id}{version}", id, version))
    store.remove("liver", "1.0")
    assert [(p.id, p.version) for p in store.installed()] == [("liver", "2.0"), ("spleen", "1.0")]
    store.remove("liver")
    assert [p.id for p in store.installed()] == ["spleen"]
    assert not (store.location() / "liver").exists()
    with pytest.raises(PackageError, match="'liver' is in"):
        store.remove("liver")


def test_the_license_is_asked_for_once_and_before_the_download(store, served, tmp_path):
    server, entry = served
    asks = entry_for(server.content, server.url(), license_acknowledgment=True)
    with pytest.raises(PackageError, match=r"Apache-2\.0 .* acknowledged .*licenses/LICENSE"):
        store.install(asks)
    assert server.requests == []
    store.licenses.acknowledge(asks)
    store.install(asks)
    assert not PackageStore(store.location(), validate).licenses.is_missing(asks)
    assert not store.licenses.is_missing(entry)


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
    root = Path(__file__).resolve().parents[2]
    child = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    part = store.location() / ".downloads" / "liver@1.0.0.zip.part"
    deadline = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size == 100_000):
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    with pytest.raises(Cancelled, match="another installation"):
        began = time.monotonic()
        store.install(entry, cancel=lambda: time.monotonic() - began > 0.2)
    child.kill()
    child.wait()
    assert store.installed() == []
    store.install(entry)
    assert contents(store) == INSTALLED
    assert server.requests[-1].range == "bytes=100000-"


def test_installing_the_same_package_at_once_downloads_it_once(store, served):
    server, entry = served
    paths, errors = [], []

    def install():
        try:
            paths.append(PackageStore(store.location(), validate).install(entry))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=install) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert set(paths) == {store.location() / "liver" / "1.0.0"}
    assert len(server.requests) == 1
    assert contents(store) == INSTALLED


def test_processes_that_import_at_once_do_not_disturb_each_other(tmp_path):
    package = write_threshold_package(tmp_path / "source" / "package")
    archive = zipped(package.path)
    root = Path(__file__).resolve().parents[2]
    code = (
        "from MIMSegment.Logic.store import PackageStore\n"
        f"print(PackageStore({str(tmp_path / 'store')!r}).import_file({str(archive)!r}))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=root, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = {child.communicate(timeout=20)[0].strip() for child in children}
    assert answers == {str(tmp_path / "store" / "bright-thing" / "1.2.0")}
    assert [p.id for p in PackageStore(tmp_path / "store").installed()] == ["bright-thing"]


def test_a_real_package_is_checked_by_its_checksums(tmp_path):
    store = PackageStore(tmp_path / "store")
    package = write_threshold_package(tmp_path / "source" / "package")
    archive = zipped(package.path)
    assert store.find(archive) == store.location() / "bright-thing" / "1.2.0"
    store.remove("bright-thing")
    (package.path / "labels.csv").write_text("LabelValue,Name\n3,Changed\n")
    with pytest.raises(PackageError, match=r"not installed.*labels\.csv does not match"):
        store.import_file(zipped(package.path))
    assert store.installed() == []


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


def test_the_home_folder_follows_the_system_and_the_variable(tmp_path, monkeypatch):
    home = Path.home()
    own = {"MIMSEGMENT_HOME": str(tmp_path / "own"), "XDG_DATA_HOME": "/xdg"}
    assert data_home(own, "linux") == data_home(own, "win32") == tmp_path / "own"
    assert data_home({"MIMSEGMENT_HOME": "~/x"}, "linux") == home / "x"
    assert data_home({"XDG_DATA_HOME": "/xdg"}, "linux") == Path("/xdg/MIMSegment")
    for environ in ({}, {"XDG_DATA_HOME": "relative"}, {"MIMSEGMENT_HOME": ""}):
        assert data_home(environ, "linux") == home / ".local/share/MIMSegment"
    assert data_home({}, "darwin") == home / "Library/Application Support/MIMSegment"
    assert data_home({}, "win32") == home / "AppData/Local/MIMSegment"
    assert data_home({"LOCALAPPDATA": "/appdata"}, "win32") == Path("/appdata/MIMSegment")
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "own"))
    assert PackageStore().location() == tmp_path / "own" / "packages"
