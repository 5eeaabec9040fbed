"""The sample studies and packages that come with the program are whole and belong together."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from MIMSegment.Logic.catalog import BUNDLED_CATALOG, load_catalog
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.inputs import read_inputs
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import METADATA, load_package, sha256
from MIMSegment.Logic.samples import SAMPLE_FOLDER, sample_studies, sample_study
from MIMSegment.Logic.store import PackageStore

STUDIES = sample_studies()
ENTRIES = load_catalog().entries


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.id)
def test_every_file_of_a_sample_study_is_listed_and_whole(study):
    study.check()
    assert set(study.folder.iterdir()) == set(study.files.values())


def test_a_damaged_sample_is_named(tmp_path):
    study = STUDIES[0]
    folder = tmp_path / "SampleData"
    for file in (SAMPLE_FOLDER / "samples.json", *study.files.values()):
        copy = folder / file.relative_to(SAMPLE_FOLDER)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
    broken = sample_study(study.id, folder)
    broken.check()
    first = next(iter(broken.files.values()))
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(InputError, match=first.name):
        broken.check()


def test_an_unknown_sample_names_those_that_there_are():
    with pytest.raises(InputError, match="phantom-prostate"):
        sample_study("liver")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.id)
def test_the_catalog_says_of_a_bundled_package_what_the_package_says(entry):
    package = load_package(entry.folder)
    files = [path for path in entry.folder.rglob("*") if path.is_file()]
    assert (package.id, package.version, package.phantom) == (entry.id, entry.version, True)
    assert entry.sha256 == sha256(entry.folder / METADATA)
    assert entry.size_bytes == sum(path.stat().st_size for path in files) < 3_000_000
    assert [(i.name, i.modality) for i in package.spec.inputs] == [
        (i.name, i.modality) for i in entry.inputs
    ]
    assert tuple(label.name for label in package.labels) == entry.structures
    assert "phantom" in entry.title.lower()


def test_every_package_folder_is_in_the_catalog_and_found_by_name():
    folders = {path.parents[1] for path in BUNDLED_CATALOG.parent.glob(f"*/{METADATA}")}
    assert folders == {entry.folder for entry in ENTRIES}
    store = PackageStore(BUNDLED_CATALOG.parent / "no-such-store")
    for entry in ENTRIES:
        assert store.find(entry.id) == store.install(entry) == entry.folder
    assert not store.location().exists()


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: study.id)
def test_the_files_are_matched_to_the_inputs_of_their_package_by_name(study):
    modality = "CT" if "CT" in study.files else "MR"
    inputs = tuple(InputSpec(name, modality) for name in study.files)
    volume, explanation = read_inputs([str(study.folder)], SimpleNamespace(inputs=inputs))
    assert volume.array.shape[0] == len(inputs)
    for name, sentence in zip(study.files, explanation, strict=True):
        assert study.files[name].name in sentence


def test_the_command_of_the_readme_segments_the_sample(tmp_path, monkeypatch, capsys):
    root = Path(__file__).resolve().parents[2]
    (command,) = re.findall(
        r"^mimsegment (segment MIMSegment/.*)$", (root / "README.md").read_text(), re.M
    )
    monkeypatch.chdir(root)
    arguments = shlex.split(command)
    out = arguments[arguments.index("-o") + 1] = str(tmp_path / "result.seg.nrrd")
    assert main(arguments) == 0
    assert Path(out).is_file() and "lesion" in capsys.readouterr().out
