import copy
import json
import math

import pytest

from MIMSegment.Logic.catalog import (
    BUNDLED_CATALOG,
    available_packages,
    load_catalog,
    merge_catalogs,
    parse_catalog,
    version_key,
)
from MIMSegment.Logic.errors import PackageError

SCHEMA = BUNDLED_CATALOG.with_name("catalog.schema.json")
LIVER = {
    "id": "ct-abdomen",
    "version": "1.10.0",
    "title": "Abdominal organs",
    "description": "Organs in portal venous phase; sees ascites, not tumors.",
    "region": "abdomen",
    "inputs": [{"name": "CT", "modality": "CT"}],
    "structures": ["Liver", "Left kidney", "Right kidney", "Œsophagus"],
    "license": "Apache-2.0",
    "license_url": "https://www.apache.org/licenses/LICENSE-2.0",
    "license_acknowledgment": False,
    "training_data": "40 public scans",
    "size_bytes": 1000,
    "cpu_seconds": 40,
    "cpu_hardware": "laptop, 8 cores",
    "gpu_seconds": None,
    "gpu_hardware": None,
    "phantom": False,
    "urls": ["https://example.org/ct-abdomen.zip"],
    "sha256": "ab" * 32,
    "deprecated": False,
}
BRAIN = {
    **LIVER,
    "id": "mr-brain-tumor",
    "version": "2.0",
    "title": "Brain tumor",
    "description": "Glioma and its regions; the liver is not looked at.",
    "region": "brain",
    "inputs": [{"name": n, "modality": "MR"} for n in ("T1", "T1c", "T2", "FLAIR")],
    "structures": ["Oedema", "Necrosis", "Enhancing tumor"],
    "license": "CC-BY-NC-4.0",
    "license_acknowledgment": True,
}
PET = {
    **LIVER,
    "id": "pet-lesions",
    "title": "Lésions",
    "region": "whole body",
    "description": "FDG-avid lesions.",
    "structures": ["Lesion"],
    "inputs": [{"name": "FDG", "modality": "PT"}, {"name": "CT", "modality": "CT"}],
}
OLD = {**LIVER, "version": "1.9.0", "deprecated": True}


def catalog(*packages):
    return parse_catalog({"schema_version": 1, "packages": list(packages)}, "catalog.json")


def changed(**fields):
    return {**copy.deepcopy(LIVER), **fields}


def without(field):
    return {name: value for name, value in LIVER.items() if name != field}


def ids(entries):
    return [entry.id for entry in entries]


GOOD = {
    "all fields": LIVER,
    "several inputs": BRAIN,
    "required fields only": {
        n: v for n, v in LIVER.items() if not n.startswith(("cpu", "gpu")) and n != "deprecated"
    },
    "time unknown": changed(cpu_seconds=None, cpu_hardware=None),
    "hardware without time": changed(cpu_seconds=None),
    "whole number as float": changed(size_bytes=1000.0),
    "http mirror": changed(urls=["http://pacs.hospital.example:8080/a.zip?x=1"]),
    "folder without mirror": changed(folder="ct-abdomen", urls=[]),
    "folder and mirror": changed(folder="ct-abdomen"),
    "two identical inputs": changed(inputs=[{"name": "CT", "modality": "CT"}] * 2),
}
BAD = {f"no {name}": without(name) for name in GOOD["required fields only"]}
BAD |= {
    "unknown field": changed(colour="red"),
    "not a table": ["id"],
    "upper-case id": changed(id="Liver"),
    "id with a path": changed(id="../liver"),
    "id ends in a dot": changed(id="liver."),
    "id too long": changed(id="a" * 81),
    "version is a number": changed(version=1.0),
    "version with a path": changed(version="1/2"),
    "version ends in a dot": changed(version="1."),
    "empty title": changed(title=" "),
    "title is null": changed(title=None),
    "no inputs": changed(inputs=[]),
    "unknown modality": changed(inputs=[{"name": "CT", "modality": "ct"}]),
    "modality is a list": changed(inputs=[{"name": "CT", "modality": []}]),
    "input without a name": changed(inputs=[{"modality": "CT"}]),
    "input with more": changed(inputs=[{"name": "CT", "modality": "CT", "x": 1}]),
    "no structures": changed(structures=[]),
    "structure twice": changed(structures=["Liver", "Liver"]),
    "structures is a text": changed(structures="Liver"),
    "license address is a file": changed(license_url="file:///etc/passwd"),
    "acknowledgment is 1": changed(license_acknowledgment=1),
    "size is 0": changed(size_bytes=0),
    "size is a text": changed(size_bytes="1 GB"),
    "size is true": changed(size_bytes=True),
    "size is broken": changed(size_bytes=10.5),
    "time is negative": changed(cpu_seconds=-1),
    "time without hardware": changed(gpu_seconds=3, gpu_hardware=None),
    "time without any hardware": without("cpu_hardware"),
    "phantom is null": changed(phantom=None),
    "no mirror": changed(urls=[]),
    "folder elsewhere": changed(folder="../ct-abdomen", urls=[]),
    "folder is null": changed(folder=None),
    "mirror twice": changed(urls=LIVER["urls"] * 2),
    "mirror is a file": changed(urls=["file:///a.zip"]),
    "mirror with a password": changed(urls=["https://user:word@example.org/a.zip"]),
    "sum is short": changed(sha256="ab"),
    "sum in upper case": changed(sha256="AB" * 32),
    "deprecated is a text": changed(deprecated="no"),
}


@pytest.fixture(scope="module")
def schema():
    jsonschema = pytest.importorskip("jsonschema")
    rules = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(rules)
    return jsonschema.Draft202012Validator(rules)


@pytest.mark.parametrize("package", GOOD.values(), ids=GOOD)
def test_schema_and_program_accept_the_same(package, schema):
    data = {"schema_version": 1, "packages": [package]}
    assert schema.is_valid(data)
    assert len(parse_catalog(data, "catalog.json").entries) == 1


@pytest.mark.parametrize("package", BAD.values(), ids=BAD)
def test_schema_and_program_refuse_the_same(package, schema):
    data = {"schema_version": 1, "packages": [LIVER, package]}
    assert not schema.is_valid(data)
    with pytest.raises(PackageError, match=r"catalog\.json, package 2"):
        parse_catalog(data, "catalog.json")


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {"packages": []},
        {"schema_version": 2, "packages": []},
        {"schema_version": True, "packages": []},
        {"schema_version": 1, "packages": {}},
        {"schema_version": 1, "packages": [], "more": 1},
    ],
)
def test_schema_and_program_refuse_the_same_frames(data, schema):
    # Python takes True for 1, JSON does not.
    assert not schema.is_valid(data)
    with pytest.raises(PackageError, match=r"catalog\.json"):
        parse_catalog(data, "catalog.json")


def test_every_rule_of_the_schema_is_one_of_the_program(schema):
    rules = schema.schema["$defs"]["package"]
    assert set(rules["properties"]) == {*LIVER, "folder"}
    assert set(rules["required"]) == set(GOOD["required fields only"])


def test_the_error_names_file_entry_and_field():
    with pytest.raises(PackageError) as caught:
        catalog(LIVER, changed(id="brain", sha256="x"))
    assert str(caught.value) == (
        "The catalog catalog.json, package 2 (brain): 'sha256' must be 64 lower-case hexadecimal "
        "digits, not 'x'."
    )


def test_the_bundled_catalog_is_valid(schema):
    assert schema.is_valid(json.loads(BUNDLED_CATALOG.read_text(encoding="utf-8")))
    assert all(entry.sha256 for entry in load_catalog().entries)


def test_a_package_listed_twice_is_refused():
    with pytest.raises(PackageError, match=r"ct-abdomen 1\.10\.0 more than once"):
        catalog(LIVER, LIVER)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"schema_version": 1, "packages": [NaN]}', "\udcff"]
)
def test_a_file_that_is_no_json_is_named(tmp_path, text):
    path = tmp_path / "mine.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(PackageError, match=r"mine\.json is not valid JSON"):
        load_catalog(path)
    with pytest.raises(PackageError, match=r"none\.json cannot be read"):
        load_catalog(tmp_path / "none.json")


def test_an_entry_keeps_every_field():
    entry = catalog(BRAIN).entries[0]
    assert {name: getattr(entry, name) for name in BRAIN if name != "inputs"} == {
        **{name: value for name, value in BRAIN.items() if name != "inputs"},
        "structures": tuple(BRAIN["structures"]),
        "urls": tuple(BRAIN["urls"]),
    }
    assert [(i.name, i.modality) for i in entry.inputs] == [
        (i["name"], i["modality"]) for i in BRAIN["inputs"]
    ]
    assert entry.modality == "MR" and catalog(PET).entries[0].modality == "PT/CT"


def test_search_without_words_lists_by_title_with_phantom_packages_last():
    demo = changed(id="demo", title="A demo", phantom=True)
    found = catalog(demo, PET, BRAIN, LIVER, OLD).search()
    assert ids(found) == ["ct-abdomen", "mr-brain-tumor", "pet-lesions", "demo"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TUMOUR", ["mr-brain-tumor", "ct-abdomen"]),
        ("edema", ["mr-brain-tumor"]),
        ("oesophagus", ["ct-abdomen"]),
        ("esophagus", ["ct-abdomen"]),
        ("lesions", ["pet-lesions"]),
        ("lésion", ["pet-lesions"]),
        ("kidneys", ["ct-abdomen"]),
        ("left kid", ["ct-abdomen"]),
        ("liver", ["ct-abdomen", "mr-brain-tumor"]),
        ("liver glioma", ["mr-brain-tumor"]),
        ("flair", ["mr-brain-tumor"]),
        ("mri", ["mr-brain-tumor"]),
        ("liver nonsense", []),
        ("  ,; ", ["ct-abdomen", "mr-brain-tumor", "pet-lesions"]),
    ],
)
def test_search_finds_words_and_puts_the_best_first(text, expected):
    assert ids(catalog(PET, BRAIN, LIVER).search(text)) == expected


def test_filters_combine_and_need_no_exact_case():
    packages = catalog(PET, BRAIN, LIVER, OLD)
    assert ids(packages.search(modality="CT")) == ["ct-abdomen", "pet-lesions"]
    assert ids(packages.search(modality="PT")) == ["pet-lesions"]
    assert ids(packages.search(modality="ct", region="Abdomen")) == ["ct-abdomen"]
    assert ids(packages.search(license="CC-BY-NC-4.0")) == ["mr-brain-tumor"]
    assert ids(packages.search("liver", modality="MR", region="abdomen")) == []


def test_deprecated_versions_show_on_request_newest_first():
    versions = [e.version for e in catalog(OLD, LIVER).search("liver", include_deprecated=True)]
    assert versions == ["1.10.0", "1.9.0"]
    assert [e.version for e in catalog(OLD, LIVER).search("liver")] == ["1.10.0"]


def test_facets_count_what_can_be_chosen():
    packages = catalog(PET, BRAIN, LIVER, OLD)
    assert packages.facets() == {
        "modality": {"CT": 2, "MR": 1, "PT": 1},
        "region": {"abdomen": 1, "brain": 1, "whole body": 1},
        "license": {"Apache-2.0": 2, "CC-BY-NC-4.0": 1},
    }
    assert packages.facets(include_deprecated=True)["modality"]["CT"] == 3
    for name, values in packages.facets().items():
        for value, count in values.items():
            assert len(packages.search(**{name: value})) == count


def test_get_takes_the_newest_that_is_not_deprecated():
    newest_but_bad = changed(version="2.0", deprecated=True)
    packages = catalog(OLD, LIVER, newest_but_bad)
    assert packages.get("ct-abdomen").version == "1.10.0"
    assert packages.get("ct-abdomen", "1.9.0").deprecated
    with pytest.raises(PackageError, match="no package 'ct-abdomen 3'"):
        packages.get("ct-abdomen", "3")


def test_a_second_catalog_adds_packages_and_mirrors():
    mirror = changed(urls=["https://pacs.example/a.zip"], title="Other title")
    merged = merge_catalogs([catalog(LIVER), catalog(mirror, BRAIN)])
    assert ids(merged.entries) == ["ct-abdomen", "mr-brain-tumor"]
    assert merged.entries[0].urls == ("https://pacs.example/a.zip", *LIVER["urls"])
    assert merged.entries[0].title == LIVER["title"]


def test_two_catalogs_that_disagree_on_a_file_are_refused():
    with pytest.raises(PackageError, match=r"different files .* ct-abdomen 1\.10\.0"):
        merge_catalogs([catalog(LIVER), catalog(changed(sha256="cd" * 32))])


def test_the_users_own_catalogs_are_read_from_the_home_folder(tmp_path):
    assert available_packages(tmp_path) == load_catalog()
    (tmp_path / "catalogs").mkdir()
    text = json.dumps({"schema_version": 1, "packages": [BRAIN]})
    (tmp_path / "catalogs" / "hospital.json").write_text(text)
    assert "mr-brain-tumor" in ids(available_packages(tmp_path).entries)


def test_an_own_catalog_that_cannot_be_used_is_left_out_with_the_reason(tmp_path):
    folder = tmp_path / "catalogs"
    folder.mkdir()
    bundled = load_catalog()
    other = changed(id=bundled.entries[0].id, version=bundled.entries[0].version)
    texts = {
        "comma.json": '{"schema_version": 1, "packages": [],}',
        "conflict.json": json.dumps({"schema_version": 1, "packages": [BRAIN, other]}),
        "good.json": json.dumps({"schema_version": 1, "packages": [LIVER]}),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    found = available_packages(tmp_path)
    assert ids(found.entries) == [*ids(bundled.entries), LIVER["id"]]
    comma, conflict = found.warnings
    assert "comma.json is not valid JSON" in comma and "different files" in conflict
    assert conflict.endswith(
        f"Until {folder / 'conflict.json'} is mended or removed, it is left out."
    )
    assert merge_catalogs([found, catalog(BRAIN)]).warnings == found.warnings


def test_versions_are_ordered_by_number_and_a_prerelease_comes_first():
    versions = ["1.10.0", "2.0", "1.9", "2.0-rc1", "1.9.1", "2.0-rc2", "1.0+build7"]
    assert sorted(versions, key=version_key) == [
        "1.0+build7", "1.9", "1.9.1", "1.10.0", "2.0-rc1", "2.0-rc2", "2.0",
    ]  # fmt: skip


def test_infinite_numbers_are_refused():
    with pytest.raises(PackageError, match="cpu_seconds"):
        catalog(changed(cpu_seconds=math.inf))
