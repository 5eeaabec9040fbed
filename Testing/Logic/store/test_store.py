"""Installing, importing, finding and removing packages, whatever happens in between."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from MIMSegment.Logic.errors import Cancelled, PackageError
from MIMSegment.Logic.store import PackageStore, data_home
from store_cases import (
    INSTALLED,
    METADATA,
    ROOT,
    contents,
    entry_for,
    validate,
    write_package,
    zipped,
)
from tiny_package import write_threshold_package


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
    with pytest.raises(PackageError, match=r"'ct-livr'; did you mean ct-liver"):
        store.find("ct-livr")
    with pytest.raises(PackageError, match=r"ct-liver@1\.0\.0"):
        store.find("ct-liver@2.0.0")
    with pytest.raises(PackageError, match="there are ct-liver and mr-brain-tumor"):
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
    with pytest.raises(PackageError, match="no model package 'liver'"):
        store.remove("liver")


def test_the_license_is_asked_for_once_and_before_the_download(store, served, tmp_path):
    server, entry = served
    asks = entry_for(server.content, server.url(), license_acknowledgment=True)
    with pytest.raises(PackageError, match=r"Apache-2\.0 .* accepted .*licenses/LICENSE"):
        store.install(asks)
    assert server.requests == []
    store.licenses.acknowledge(asks)
    store.install(asks)
    assert not PackageStore(store.location(), validate).licenses.is_missing(asks)
    assert not store.licenses.is_missing(entry)


def test_installing_the_same_package_at_once_downloads_it_once(store, served):
    server, entry = served
    with ThreadPoolExecutor(6) as pool:
        stores = [PackageStore(store.location(), validate) for _ in range(6)]
        paths = set(pool.map(lambda one: one.install(entry), stores))
    assert paths == {store.location() / "liver" / "1.0.0"}
    assert len(server.requests) == 1
    assert contents(store) == INSTALLED


def test_processes_that_import_at_once_do_not_disturb_each_other(tmp_path):
    package = write_threshold_package(tmp_path / "source" / "package")
    archive = zipped(package.path)
    code = (
        "from MIMSegment.Logic.store import PackageStore\n"
        f"print(PackageStore({str(tmp_path / 'store')!r}).import_file({str(archive)!r}))\n"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
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
