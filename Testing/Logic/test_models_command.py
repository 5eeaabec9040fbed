import hashlib
import json
import shutil
from pathlib import Path

import pytest

from loopback_server import Answer, LoopbackServer
from MIMSegment.Logic.cli import main
from tiny_package import write_threshold_package

NAME = "bright-thing@1.2.0"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("MIMSEGMENT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("no_proxy", "*")
    return tmp_path / "home"


@pytest.fixture
def archive(tmp_path):
    package = write_threshold_package(tmp_path / "package")
    return Path(shutil.make_archive(str(tmp_path / "bright-thing"), "zip", package.path))


@pytest.fixture
def server(archive):
    with LoopbackServer(archive.read_bytes()).running() as server:
        yield server


def write_catalog(path, archive, url, **changes):
    entry = {
        "id": "bright-thing", "version": "1.2.0", "title": "Bright thing",
        "description": "What is brighter than half.", "region": "abdomen",
        "inputs": [{"name": "CT", "modality": "CT"}], "structures": ["Bright thing"],
        "license": "CC-BY-4.0", "license_url": "https://creativecommons.org/licenses/by/4.0/",
        "license_acknowledgment": False, "training_data": "none", "phantom": False,
        "size_bytes": archive.stat().st_size, "urls": [url],
        "sha256": hashlib.sha256(archive.read_bytes()).hexdigest(), **changes,
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"schema_version": 1, "packages": [entry]}))
    return path


@pytest.fixture
def catalog(home, archive, server):
    """A catalog of the user's own."""
    return write_catalog(home / "catalogs" / "own.json", archive, server.url())


def printed(arguments, capsys) -> str:
    assert main(arguments) == 0
    return capsys.readouterr().out


def failing(arguments, capsys) -> str:
    assert main(arguments) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("mimsegment: error: ")
    return line


def test_the_list_holds_what_came_with_the_program_and_the_users_catalog(catalog, capsys):
    lines = printed(["models", "list"], capsys).splitlines()
    states = {line.split()[0]: line for line in lines}
    assert "download" in states[NAME]
    assert "ready" in states["phantom-abdomen@1.0.0"]


def test_words_and_filters_narrow_the_list(catalog, capsys):
    def names(*arguments):
        lines = printed(["models", "search", *arguments], capsys).splitlines()
        return {line.partition("@")[0] for line in lines}

    assert names("kidney") == {"phantom-abdomen"}
    assert names("--region", "abdomen") == {"phantom-abdomen", "bright-thing"}
    assert names("--region", "abdomen", "--ready") == {"phantom-abdomen"}
    assert names("--license", "cc-by-4.0") == {"bright-thing"}
    assert names("--modality", "MR") == {"phantom-brain", "phantom-prostate"}


def test_a_search_without_result_shows_what_could_be_chosen(catalog, capsys):
    out = printed(["models", "list", "spaceship"], capsys)
    assert "No package matches" in out
    assert "CT (2)" in out


def test_the_list_as_json_has_every_field_and_the_folder(catalog, capsys):
    found = json.loads(printed(["models", "list", "--json"], capsys))
    entries = {entry["id"]: entry for entry in found}
    assert entries["bright-thing"]["path"] is None
    assert entries["bright-thing"]["license"] == "CC-BY-4.0"
    assert Path(entries["phantom-brain"]["path"]).is_dir()


def test_a_package_is_downloaded_used_located_and_removed(catalog, home, capsys):
    assert main(["models", "download", "bright-thing"]) == 0
    out, progress = capsys.readouterr()
    assert NAME in out
    assert "100%" in progress
    path = Path(printed(["models", "location", NAME], capsys).strip())
    assert path.is_relative_to(home)
    assert "Bright thing" in printed(["info", "bright-thing"], capsys)
    assert "ready" in printed(["models", "list", "bright"], capsys)
    assert printed(["models", "remove", "bright-thing"], capsys) == "Removed bright-thing.\n"
    assert not path.exists()
    assert "download" in printed(["models", "list", "bright"], capsys)


def test_a_package_that_is_only_listed_is_named_with_the_way_to_get_it(catalog, capsys):
    line = failing(["info", "bright-thing"], capsys)
    assert "mimsegment models download bright-thing" in line


def test_a_cut_download_says_why_and_goes_on_the_next_time(catalog, server, capsys):
    half = len(server.content) // 2
    server.script["/package.zip"] = [Answer(cut_after=half), *[Answer(status=404)] * 9]
    assert "404" in failing(["models", "download", NAME], capsys)
    server.script.clear()
    printed(["models", "download", NAME], capsys)
    assert server.requests[-1].range == f"bytes={half}-"


def test_a_license_is_accepted_once(archive, home, server, capsys):
    own = home / "catalogs" / "own.json"
    write_catalog(own, archive, server.url(), license_acknowledgment=True)
    assert "license" in printed(["models", "list", "bright"], capsys)
    assert "--accept-license" in failing(["models", "download", NAME], capsys)
    assert not server.requests
    printed(["models", "download", NAME, "--accept-license"], capsys)
    printed(["models", "remove", NAME], capsys)
    printed(["models", "download", NAME], capsys)


def test_several_catalogs_are_one_and_add_mirrors(archive, server, tmp_path, capsys):
    gone = write_catalog(tmp_path / "far.json", archive, server.url("/gone"))
    near = write_catalog(tmp_path / "near.json", archive, server.url("/near"))
    both = ["--catalog", str(gone), "--catalog", str(near)]
    assert printed(["models", "list", *both], capsys).count("bright-thing") == 1
    printed(["models", "download", NAME, *both], capsys)
    assert [request.path for request in server.requests] == ["/near"]  # the later one first
    assert "bright-thing" in printed(["models", "list", "--ready"], capsys)


def test_a_catalog_that_is_none_is_named(tmp_path, capsys):
    path = tmp_path / "notes.json"
    assert "notes.json" in failing(["models", "list", "--catalog", str(path)], capsys)
    path.write_text("{}")
    assert "schema_version" in failing(["models", "list", "--catalog", str(path)], capsys)


def test_an_own_catalog_that_is_damaged_is_a_warning(catalog, home, capsys):
    (home / "catalogs" / "hospital.json").write_text('{"schema_version": 1, "packages": [],}')
    assert main(["models", "list", "bright"]) == 0
    out, err = capsys.readouterr()
    assert "bright-thing" in out
    assert err.startswith("warning: The catalog ") and "hospital.json is not valid JSON" in err
    line = failing(["info", "bright-thing"], capsys)
    assert "mimsegment models download bright-thing" in line


@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_a_zip_or_folder_is_imported(archive, tmp_path, home, kind, capsys):
    source = archive if kind == "zip" else tmp_path / "package"
    out = printed(["models", "import", str(source)], capsys)
    assert NAME in out
    assert printed(["models", "location"], capsys).strip() == str(home / "packages")
    assert source.exists()


def test_what_is_no_package_is_not_imported(tmp_path, home, capsys):
    notes = tmp_path / "notes.zip"
    notes.write_text("hello")
    assert "no zip file" in failing(["models", "import", str(notes)], capsys)
    assert "does not exist" in failing(["models", "import", str(tmp_path / "no.zip")], capsys)
    assert not home.exists()


def test_what_came_with_the_program_stays(capsys):
    line = failing(["models", "remove", "phantom-brain"], capsys)
    assert "came with the program" in line
    assert "nothing-there" in failing(["models", "remove", "nothing-there"], capsys)
