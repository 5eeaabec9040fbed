"""What of a result is compared with what of a reference: by name, and regions by what they hold."""

import json

import numpy as np
import pytest

import evaluate
from mim.case_table import read_cases
from mim.cases import Dataset
from mim.evaluation import evaluate_cases
from mim.protocols import PROTOCOLS
from mim.regions import Region
from mim.structures import structures_of
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.labels import Label, labels_to_csv
from MIMSegment.Logic.matching import InputSpec
from MIMSegment.Logic.package import ModelPackage, write_package
from MIMSegment.Logic.spec import ModelSpec, Normalization, Preprocessing
from MIMSegment.Logic.volume import Volume
from onnx_writer import node, write_onnx
from small_sets import put, scan
from tiny_package import MONAI

DECATHLON = {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}
BRATS = {1: "necrosis", 2: "edema", 3: "enhancing tumor"}
OUTSIDE = {1: "whole tumor outside tumor core", 2: "tumor core outside ET", 3: "ET"}
WHOLE, CORE, ENHANCING = "whole tumor", "tumor core", "enhancing tumor"
STATED = (Region("WT", (1, 2, 3), 2), Region("TC", (1, 3), 1), Region("ET", (3,), 3))


def spec(values, head):
    """Of a network of one input with these channels."""
    preprocessing = Preprocessing((None,) * 3, (Normalization("rescale_to_01"),), image_order=1)
    inputs = (InputSpec("CT", "CT"),)
    return ModelSpec(inputs, preprocessing, (8, 16, 16), tuple(values), head)


def package(names, head="softmax"):
    """A package with these structures, and no network."""
    labels = tuple(Label(value, name) for value, name in names.items())
    return ModelPackage("", "tiny", "1.0.0", "Tiny", spec(names, head), labels)


def data(labels, regions=(), labels_csv=None):
    return Dataset("scans", (), labels=labels, regions=regions, labels_csv=labels_csv)


def test_structures_go_by_name_whatever_their_values_case_and_spaces():
    found = structures_of(
        package({1: "Left kidney", 2: "tumor"}), data({1: "tumor", 2: "left_KIDNEY"})
    )
    assert found.found == {"Left kidney": (1,), "tumor": (2,)}
    assert found.truth == {"Left kidney": (2,), "tumor": (1,)}


def test_values_stay_where_the_data_set_names_nothing():
    found = structures_of(package({4: "organ", 7: "tumor"}), data({}))
    assert found.found == found.truth == {"organ": (4,), "tumor": (7,)}


def test_what_only_one_side_has_is_said_and_not_measured():
    found = structures_of(package({1: "liver", 2: "spleen"}), data({5: "liver", 6: "cyst"}))
    assert found.found == {"liver": (1,)} and found.truth == {"liver": (5,)}
    assert found.summary() == {"only_in_package": ["spleen"], "only_in_data": ["cyst"]}


def test_nothing_in_common_is_refused_with_the_names_of_both():
    with pytest.raises(InputError, match=r"has liver, the data set cyst.*name them alike"):
        structures_of(package({1: "liver"}), data({1: "cyst"}))


def test_names_of_the_data_sets_labels_csv_count_too(tmp_path):
    table = tmp_path / "labels.csv"
    table.write_text(labels_to_csv([Label(3, "right kidney"), Label(4, "left kidney")]))
    known = data({3: "kidney_right", 4: "kidney_left"}, labels_csv=table)
    found = structures_of(package({1: "left kidney", 2: "right kidney"}), known)
    assert found.truth == {"left kidney": (4,), "right kidney": (3,)}
    assert found.only_in_data == ()


@pytest.mark.parametrize(
    ("names", "head", "values"),
    [
        (OUTSIDE, "regions", {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}),
        ({1: "WT", 2: "TC", 3: "ET"}, "regions", {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}),
        (DECATHLON, "regions", {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}),
        ({7: "NCR", 8: "ED", 9: "ET"}, "softmax", {"WT": (7, 8, 9), "TC": (7, 9), "ET": (9,)}),
    ],
)
def test_regions_of_the_data_set_are_found_in_what_makes_them_up(names, head, values):
    painted = {1: "TC outside ET", 2: "WT outside TC", 3: "ET"}
    found = structures_of(package(names, head), data(painted, STATED))
    assert found.found == values
    assert found.truth == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    assert not any(found.summary().values())


@pytest.mark.parametrize("names", [OUTSIDE, DECATHLON, {1: WHOLE, 2: CORE, 3: ENHANCING}])
def test_a_package_of_regions_is_measured_on_the_labels_that_make_them_up(names):
    found = structures_of(package(names, "regions"), data(BRATS))
    assert found.found == {WHOLE: (1, 2, 3), CORE: (2, 3), ENHANCING: (3,)}
    assert found.truth == {WHOLE: (1, 2, 3), CORE: (1, 3), ENHANCING: (3,)}


@pytest.mark.parametrize(
    ("names", "head", "values"), [(OUTSIDE, "regions", (1, 2, 3)), (BRATS, "softmax", (1, 2, 3))]
)
def test_a_label_of_the_whole_tumor_is_compared_with_all_its_parts(names, head, values):
    found = structures_of(package(names, head), data({1: "whole tumour"}))
    assert found.found == {"whole tumour": values} and found.truth == {"whole tumour": (1,)}


def test_a_package_of_labels_is_measured_on_labels():
    found = structures_of(package(DECATHLON), data({1: "Enhancing tumour", 2: "edema"}))
    assert found.found == {"edema": (1,), "enhancing tumour": (3,)}
    assert found.truth == {"edema": (2,), "enhancing tumour": (1,)}


def test_a_region_is_no_label_of_its_name():
    kidneys = {1: "kidney outside masses", 3: "masses outside tumor", 2: "tumor"}
    found = structures_of(package(kidneys, "regions"), data({1: "kidney", 2: "tumor", 3: "cyst"}))
    assert found.truth == {"tumor": (2,)} and found.only_in_data == ("kidney", "cyst")


def test_regions_that_do_not_lie_in_each_other_keep_their_own_values():
    names = {1: "kidneys", 3: "liver"}
    regions = (Region("kidneys", (1, 2), 1), Region("liver", (3,), 3))
    found = structures_of(package(names, "regions"), data(names, regions))
    assert found.found == {"kidneys": (1,), "liver": (3,)}
    assert found.truth == {"kidneys": (1, 2), "liver": (3,)}


BTCV = dict(enumerate(PROTOCOLS["btcv-13"].structures, start=1))


def test_a_protocol_finds_the_packages_structures_by_name():
    turned = {14 - value: name.title() for value, name in BTCV.items() if name != "pancreas"}
    found = PROTOCOLS["btcv-13-background"].for_package(package(turned), data({}))
    assert found.truth["spleen"] == (1,) and found.found["spleen"] == (13,)
    assert found.found["background"] == found.truth["background"] == (0,)
    assert found.absent == ["pancreas"]


def test_a_protocol_keeps_its_values_where_the_names_agree_with_them_or_say_nothing():
    renamed = BTCV | {10: "portal vein and splenic vein"}
    for names in (renamed, {1: "organ 1"}):
        found = PROTOCOLS["btcv-13"].for_package(package(names), data(renamed))
        assert found.found == found.truth == {name: (value,) for value, name in BTCV.items()}


MONAI_NAMES = ("spleen", "rkid", "lkid", "gall", "eso", "liver", "sto", "aorta", "IVC", "veins",
               "pancreas", "rad", "lad")  # fmt: skip


def test_a_protocol_knows_the_names_that_others_give_its_structures():
    short = dict(enumerate(MONAI_NAMES, start=1))
    turned = {14 - v: "_".join(reversed(name.split())) for v, name in BTCV.items()}
    found = PROTOCOLS["btcv-13"].for_package(package(turned), data(short))
    assert found.truth == {name: (value,) for value, name in BTCV.items()}
    assert found.found == {name: (14 - value,) for value, name in BTCV.items()}


def test_one_name_that_agrees_with_a_protocol_does_not_vouch_for_the_others():
    names = {1: "spleen", 2: "splenic lesion", 3: "label 3"}
    found = PROTOCOLS["btcv-13"].for_package(package(names), data({}))
    assert found.found["spleen"] == (1,) and found.found["left kidney"] == (3,)
    assert found.absent == ["right kidney"]
    with pytest.raises(InputError, match=r"has no right kidney, .* 1 spleen, 2 splenic lesion"):
        PROTOCOLS["btcv-13"].measured(data(names))


def test_a_data_set_of_other_values_that_lacks_a_structure_of_the_protocol_is_refused():
    known = {14 - value: name for value, name in BTCV.items() if name != "pancreas"}
    with pytest.raises(InputError, match="scans has no pancreas"):
        PROTOCOLS["btcv-13"].for_package(package(BTCV), data(known))


def test_a_protocol_of_regions_finds_them_in_packages_that_count_otherwise():
    found = PROTOCOLS["brats-regions"].for_package(package(DECATHLON), data(BRATS))
    assert found.found == {WHOLE: (1, 2, 3), CORE: (2, 3), ENHANCING: (3,)}
    assert found.truth == {WHOLE: (1, 2, 3), CORE: (1, 3), ENHANCING: (3,)}


@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """Packages that find a bright box, and a brighter one in it, as regions of two codings; and
    scans of such boxes whose labels count the other way round."""
    root = tmp_path_factory.mktemp("nested")
    weight, bias = np.ones((2, 1, 1, 1, 1), np.float32), np.array([-0.25, -0.75], np.float32)
    space = ["z", "y", "x"]
    model = write_onnx(
        root / "model.onnx", [node("Conv", ["image", "weight", "bias"], "logits")],
        ["batch", 1, *space], ["batch", 2, *space], {"weight": weight, "bias": bias},
    )  # fmt: skip
    labels = [Label(1, "box outside core"), Label(2, "core")]
    write_package(root / "package", "nested", "Nested boxes", spec((1, 2), "regions"), labels,
                  {"models/model.onnx": model}, "# Boxes\n", "none\n", MONAI)  # fmt: skip
    _, label = scan(0)
    outer = np.zeros_like(label.array)
    outer[0, 2:9, 4:16, 4:14] = 2
    outer[0, 4:7, 7:12, 7:11] = 1
    image = np.array([0, 1, 0.5], np.float32)[outer]
    put(root / "data/imagesTr/case_0.nii.gz", Volume(image, label.geometry))
    put(root / "data/labelsTr/case_0.nii.gz", Volume(outer, label.geometry))
    return root


def measured(root, out, description):
    entry = {"image": "./imagesTr/case_0.nii.gz", "label": "./labelsTr/case_0.nii.gz"}
    text = json.dumps({"modality": {"0": "CT"}, "training": [entry], **description})
    (root / "data/dataset.json").write_text(text)
    assert (
        evaluate.main(["segment", str(root / "package"), str(root / "data"), "-o", str(out)]) == 0
    )
    return {row["structure"]: row["dice"] for row in read_cases(out / "cases.csv")}


def test_a_perfect_package_of_regions_scores_one_on_a_data_set_that_states_them(nested, tmp_path):
    labels = {"background": 0, "box": [1, 2], "core": 1}
    found = measured(nested, tmp_path, {"labels": labels, "regions_class_order": [2, 1]})
    assert found == {"box": 1, "core": 1}


def test_a_perfect_package_scores_one_where_the_values_are_exchanged(nested, tmp_path, capsys):
    labels = {"0": "background", "1": "Core", "2": "rest"}
    assert measured(nested, tmp_path, {"labels": labels}) == {"core": 1}
    error = capsys.readouterr().err
    assert "only the package has: box outside core." in error
    assert "only the data set has: rest." in error
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["only_in_data"] == ["rest"]


def test_a_data_set_of_many_more_structures_is_said_in_a_line(nested, tmp_path, capsys):
    labels = {"0": "background", "1": "core", **{str(v): f"organ {v}" for v in range(2, 100)}}
    assert measured(nested, tmp_path, {"labels": labels}) == {"core": 1}
    assert "organ 9 and 90 more." in capsys.readouterr().err
    assert len(json.loads((tmp_path / "summary.json").read_text())["only_in_data"]) == 98


def test_fine_tuning_measures_a_region_by_the_values_that_paint_it(nested, tmp_path):
    """nnU-Net lets a region paint any value: here each paints that of the other's voxels."""
    case = {"id": "case_0", "subject": "case_0"}
    case["source"] = str(nested / "data/imagesTr/case_0.nii.gz")
    case["source_label"] = str(nested / "data/labelsTr/case_0.nii.gz")
    regions = [Region("box", (1, 2), 1).to_dict(), Region("core", (1,), 2).to_dict()]
    plan = {
        **spec((1, 2), "regions").to_dict(),
        "labels": [{"value": 1, "name": "core"}, {"value": 2, "name": "rest"}],
        "regions": regions,
    }

    def oracle(tile):
        return np.concatenate([tile - 0.25, tile - 0.75], axis=1)

    (row,) = evaluate_cases([case], plan, oracle)
    assert row["dice"] == {"box": 1, "core": 1}
