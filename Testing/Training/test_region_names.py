"""What the label values of a result are called where regions are painted over each other."""

import json
from dataclasses import replace

import pytest

from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from mim.regions import brats_regions, painted_names
from mim.structures import named_regions
from MIMSegment.Logic.labels import Code, Label, labels_from_csv, labels_to_csv
from small_sets import decathlon, nnunet, read

NESTED = {"background": 0, "both": [1, 4], "right": 4}
PARTS = {1: "necrosis", 2: "edema", 3: "non-enhancing core", 4: "enhancing core"}
OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)


def table(cache):
    """The cache's labels.csv, by value."""
    return {item.value: item for item in labels_from_csv((cache / "labels.csv").read_text())}


def names(cache):
    return {value: item.name for value, item in table(cache).items()}


def test_the_value_of_an_outer_region_says_what_it_leaves_out(tmp_path):
    nnunet(tmp_path / "raw", NESTED, order=(1, 4))
    prepare_dataset(tmp_path / "raw", tmp_path / "cache", OPTIONS)
    assert names(tmp_path / "cache") == {1: "both outside right", 4: "right"}
    plan = read(tmp_path / "cache", "plan.json")
    assert [item["name"] for item in plan["labels"]] == ["both outside right", "right"]
    assert [item["name"] for item in plan["regions"]] == ["both", "right"]


def test_labels_of_the_data_are_not_called_after_values_that_regions_paint(tmp_path):
    nnunet(tmp_path / "raw", NESTED, order=(4, 1))  # each paints the other's value
    assert find_dataset(tmp_path / "raw").labels == {1: "both outside right", 4: "right"}
    prepare_dataset(tmp_path / "raw", tmp_path / "cache", OPTIONS)
    assert names(tmp_path / "cache") == {4: "both outside right", 1: "right"}


def test_parts_of_a_tumor_keep_their_names_where_one_is_left_of_each_region():
    parts = {1: "edema", 2: "necrosis", 3: "enhancing tumor"}
    assert painted_names(brats_regions(parts), parts) == parts


@pytest.mark.parametrize("parts", [PARTS, {1: "a", 2: "b", 4: "c"}])
def test_a_core_of_two_parts_is_not_called_after_one_of_them(parts):
    painted = painted_names(brats_regions(parts), parts)
    assert painted == {
        2: "whole tumor outside tumor core",
        1: "tumor core outside enhancing tumor",
        4: "enhancing tumor",
    }
    sizes = {region.name: len(region.labels) for region in named_regions(painted)}
    assert sizes == {"whole tumor": 3, "tumor core": 2, "enhancing tumor": 1}


def named(folder, parts):
    """Two cases that have the labels 1 and 4, called so."""
    decathlon(folder, count=2)
    description = json.loads((folder / "dataset.json").read_text())
    description["labels"] = {"0": "background", **{str(v): name for v, name in parts.items()}}
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def test_volumes_of_a_package_are_those_of_values_as_results_have_them(tmp_path):
    parts = {1: "necrosis", 2: "edema", 3: "enhancing tumor", 4: "non-enhancing"}
    data = named(tmp_path / "data", parts)
    prepare_dataset(data, tmp_path / "cache", replace(OPTIONS, regions="brats"))
    expected = read(tmp_path / "cache", "fingerprint.json")["plausibility"]["structures"]
    assert [item["value"] for item in expected] == [1]
    voxels = 5 * 7 * 7 + 5 * 4 * 7  # both boxes, of 3 mm3
    assert expected[0]["volume_ml"] == pytest.approx([0.003 * voxels] * 2)


def test_codes_stay_with_the_label_that_they_are_of(tmp_path):
    parts = {1: "necrosis", 2: "non-enhancing", 3: "edema", 4: "enhancing tumor"}
    named(tmp_path / "data", parts)
    code = Code("SCT", "1", "a code")
    labels = [Label(value, name, type=code) for value, name in parts.items()]
    (tmp_path / "data/labels.csv").write_text(labels_to_csv(labels))
    prepare_dataset(tmp_path / "data", tmp_path / "cache", replace(OPTIONS, regions="brats"))
    codes = {item.name: item.type for item in table(tmp_path / "cache").values()}
    assert codes == {
        "whole tumor outside tumor core": None,
        "tumor core outside enhancing tumor": None,  # two labels in one value
        "enhancing tumor": code,
    }
