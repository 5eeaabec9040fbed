"""evaluate.py on a package whose answers are known."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

import evaluate
from mim.case_table import read_cases
from mim.cases import Dataset
from mim.data_sets import data_sets
from mim.protocols import PROTOCOLS
from mim.regions import Region
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume
from tiny_package import BRIGHT, write_threshold_package

GEOMETRY = Geometry.from_parts((12, 20, 24), (2.0, 1.0, 1.0), (0, 0, 0), np.eye(3))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """Three cases of two subjects: bright boxes that the package finds exactly."""
    root = tmp_path_factory.mktemp("evaluate")
    write_threshold_package(root / "package")
    data = root / "data"
    entries = []
    for number in (35, 36, 40):
        image = np.zeros((1, *GEOMETRY.shape), np.float32)
        image[0, 3:9, 4:12, number - 30 : number - 22] = 1
        name = f"img{number:04d}.nii.gz"
        for folder, array in (("imagesTr", image), ("labelsTr", (image > 0) * np.uint8(3))):
            (data / folder).mkdir(parents=True, exist_ok=True)
            write_volume(Volume(array, GEOMETRY), data / folder / name)
        entries.append({"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"})
    description = {
        "modality": {"0": "CT"},
        "labels": {"0": "background", "3": BRIGHT.name},
        "training": entries,
        "subjects": {"img0035": "a", "img0036": "a", "img0040": "b"},
    }
    (data / "dataset.json").write_text(json.dumps(description))
    return root


def run(work, *more):
    return evaluate.main(["segment", str(work / "package"), str(work / "data"), *more])


def test_a_perfect_package_scores_one_everywhere(work, tmp_path, capsys):
    assert run(work, "-o", str(tmp_path), "--lesions", BRIGHT.name) == 0
    rows = read_cases(tmp_path / "cases.csv")
    assert [(row["case"], row["subject"], row["dice"], row["hd95"]) for row in rows] == [
        ("img0035", "a", 1, 0),
        ("img0036", "a", 1, 0),
        ("img0040", "b", 1, 0),
    ]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["mean"]["dice"] == {"mean": 1, "ci95": [1, 1]}
    assert summary["detection"]["average_precision"] == 1
    said = capsys.readouterr().out
    assert BRIGHT.name in said and said.startswith("3 cases")
    assert summary["subjects"] == 2 and "From 2 subjects a bootstrap interval is too narrow" in said


def test_results_are_saved_case_by_case_as_slicers_segments(work, tmp_path, capsys):
    assert run(work, "-o", str(tmp_path), "--save-predictions", "--cases", "img0036") == 0
    (path,) = (tmp_path / "predictions").iterdir()
    assert path.name == "img0036.seg.nrrd" and str(path.parent) in capsys.readouterr().out
    truth = read_volume(work / "data/labelsTr/img0036.nii.gz")
    image = sitk.ReadImage(str(path))
    assert image.GetMetaData("Segment0_Name") == BRIGHT.name
    assert image.GetMetaData("Segment0_Color").startswith("0.866667 0.509804")
    assert (sitk.GetArrayFromImage(image) == truth.array[0]).all()


def test_a_case_that_fails_is_said_and_does_not_stop_the_others(work, tmp_path, capsys):
    shutil.copytree(work / "data", tmp_path / "data")
    (tmp_path / "data/labelsTr/img0036.nii.gz").write_bytes(b"damaged")
    command = ["segment", str(work / "package"), str(tmp_path / "data"), "--save-predictions"]
    assert evaluate.main([*command, "-o", str(tmp_path / "out")]) == 1
    assert "img0036 failed and is not in the figures" in capsys.readouterr().err
    saved = sorted(path.name for path in (tmp_path / "out/predictions").iterdir())
    assert saved == ["img0035.seg.nrrd", "img0040.seg.nrrd"]
    assert [r["case"] for r in read_cases(tmp_path / "out/cases.csv")] == ["img0035", "img0040"]
    assert "img0036" in json.loads((tmp_path / "out/summary.json").read_text())["failed"]


def test_cases_that_all_fail_are_an_error(work, tmp_path, capsys):
    shutil.copytree(work / "data", tmp_path / "data")
    for path in (tmp_path / "data/labelsTr").iterdir():
        path.write_bytes(b"damaged")
    command = ["segment", str(work / "package"), str(tmp_path / "data")]
    assert evaluate.main([*command, "-o", str(tmp_path / "out")]) == 2
    assert "could be measured: " in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_summary_without_an_interval_has_null_for_it(work, tmp_path):
    assert run(work, "-o", str(tmp_path), "--cases", "img0040") == 0
    text = (tmp_path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert summary["mean"]["dice"] == {"mean": 1, "ci95": [None, None]}


def test_a_row_without_an_image_is_not_measured_and_said(work, tmp_path, capsys):
    rows = ["image,label", *[f"{work}/data/{p}/img0035.nii.gz" for p in ("imagesTr", "labelsTr")]]
    (tmp_path / "cases.csv").write_text(f"{rows[0]}\n{rows[1]},{rows[2]}\n,{rows[2]}\n")
    command = ["segment", str(work / "package"), str(tmp_path), "-o", str(tmp_path / "out")]
    assert evaluate.main(command) == 0
    assert len(read_cases(tmp_path / "out" / "cases.csv")) == 1
    assert "left out" in (said := capsys.readouterr().err) and "row 3 has no image" in said


def test_a_protocol_chooses_cases_and_structures(work, tmp_path, monkeypatch, capsys):
    protocol = type(PROTOCOLS["btcv-13"])(
        "test", {"bright thing": 3}, (36, 38, 40), background=True
    )
    monkeypatch.setitem(PROTOCOLS, "mine", protocol)
    assert run(work, "-o", str(tmp_path), "--protocol", "mine") == 0
    assert "these are not there: 38. The figures" in capsys.readouterr().err
    assert json.loads((tmp_path / "summary.json").read_text())["protocol_lacks_cases"] == [38]
    rows = read_cases(tmp_path / "cases.csv")
    assert [(row["case"], row["structure"]) for row in rows] == [
        ("img0036", "background"),
        ("img0036", "bright thing"),
        ("img0040", "background"),
        ("img0040", "bright thing"),
    ]


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--protocol", "btcv"], "There is no protocol 'btcv'"),
        (["--cases", "img0035", "img9"], "There is no case img9 that could be measured"),
        (["--lesions", "nodule"], "has no 'nodule'"),
    ],
)
def test_what_cannot_be_measured_is_said(work, tmp_path, capsys, more, sentence):
    assert run(work, "-o", str(tmp_path / "out"), *more) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_protocol_of_other_cases_measures_none(work, tmp_path, monkeypatch, capsys):
    protocol = type(PROTOCOLS["btcv-13"])("test", {"bright thing": 3}, (1, 2))
    monkeypatch.setitem(PROTOCOLS, "mine", protocol)
    assert run(work, "-o", str(tmp_path / "out"), "--protocol", "mine") == 2
    assert "No labelled case is left" in capsys.readouterr().err


def test_two_results_are_compared_and_ranked(work, tmp_path, capsys):
    for method in ("a", "b"):
        assert run(work, "-o", str(tmp_path / "set" / method)) == 0
    table = tmp_path / "set" / "b" / "cases.csv"
    table.write_text(table.read_text().replace(",1,1,0,", ",0.8,0.9,4,"))
    tables = [str(tmp_path / "set" / method / "cases.csv") for method in ("a", "b")]
    assert evaluate.main(["compare", *tables]) == 0
    output = capsys.readouterr().out
    assert "dice: B - A = -0.2000 (95 % interval -0.2000 to -0.2000), 3 cases of 2" in output
    assert "hd95: B - A = +4.0000" in output
    assert output.count("B is worse") == 3 and "From 2 subjects" in output
    assert evaluate.main(["rank", f"boxes={tmp_path / 'set'}"]) == 0
    assert "1.00 (1.00 to 1.00)  a" in capsys.readouterr().out


def test_who_invents_a_lesion_is_worse_than_who_rightly_finds_none(tmp_path, capsys):
    """Ten patients with a lesion, ten without; B is a little better on those that have one."""
    found = "{0},{0},lesion,{1},{1},{2},0,1,{3}\n"
    none = {"a": ("nan", "nan"), "b": ("0", "40")}
    for method, dice in (("a", "0.80"), ("b", "0.81")):
        rows = [found.format(f"p{i}", dice, 5, 1) for i in range(10)]
        rows += [found.format(f"p{i}", *none[method], 0) for i in range(10, 20)]
        header = "case,subject,structure,dice,nsd,hd95,volume_error,volume,reference_volume\n"
        (tmp_path / "set" / method).mkdir(parents=True)
        (tmp_path / "set" / method / "cases.csv").write_text(header + "".join(rows))
    tables = [str(tmp_path / "set" / method / "cases.csv") for method in ("a", "b")]
    assert evaluate.main(["compare", *tables]) == 0
    output = capsys.readouterr().out
    assert "dice: B - A = -0.4950" in output and "hd95: B - A = +20.0000" in output
    assert output.count("20 cases of 20 subjects: B is worse") == 3
    assert evaluate.main(["rank", f"set={tmp_path / 'set'}"]) == 0
    assert "1.00 (1.00 to 1.00)  a" in capsys.readouterr().out


def test_results_are_compared_on_the_structures_that_both_have(work, tmp_path, capsys):
    for method in ("a", "b"):
        assert run(work, "-o", str(tmp_path / "set" / method)) == 0
    table = tmp_path / "set" / "a" / "cases.csv"
    header, *lines = table.read_text().splitlines()
    name = f",{lines[0].split(',')[2]},"
    poor = [line.replace(",1,1,0,", ",0.2,0.2,9,").replace(name, ",adrenal,") for line in lines]
    table.write_text("\n".join([header, *lines, *poor]) + "\n")
    capsys.readouterr()
    both = [str(tmp_path / "set" / method / "cases.csv") for method in ("a", "b")]
    assert evaluate.main(["compare", *both]) == 0
    output = capsys.readouterr().out
    assert "dice: B - A = +0.0000" in output and "have them: adrenal." in output
    assert evaluate.main(["rank", f"boxes={tmp_path / 'set'}"]) == 0
    assert "1.50 (1.50 to 1.50)  a" in capsys.readouterr().out


def test_cases_that_only_one_has_are_said(work, tmp_path, capsys):
    both = [tmp_path / method / "cases.csv" for method in ("a", "b")]
    for path, cases in zip(both, (["img0036", "img0040"], ["img0036"]), strict=True):
        assert run(work, "-o", str(path.parent), "--cases", *cases) == 0
    capsys.readouterr()
    assert evaluate.main(["compare", *map(str, both)]) == 0
    output = capsys.readouterr().out
    assert "only one of the two has them: 1 case (img0040)" in output
    assert "(95 % interval –), 1 cases of 1 subjects: B is undecided" in output


def test_results_by_other_labels_are_not_compared(work, tmp_path, capsys):
    for method in ("a", "b"):
        assert run(work, "-o", str(tmp_path / "set" / method)) == 0
    both = [tmp_path / "set" / method / "cases.csv" for method in ("a", "b")]
    rows = both[1].read_text().splitlines()
    rows[1] = ",".join([*rows[1].split(",")[:-1], "7.5"])
    both[1].write_text("\n".join(rows))
    assert evaluate.main(["compare", *map(str, both)]) == 2
    assert "by other labels: in img0035" in capsys.readouterr().err
    assert evaluate.main(["rank", f"boxes={tmp_path / 'set'}"]) == 2


def test_results_without_a_common_structure_are_not_compared(work, tmp_path, capsys):
    for method in ("a", "b"):
        assert run(work, "-o", str(tmp_path / method)) == 0
    table = tmp_path / "b" / "cases.csv"
    name = f",{table.read_text().splitlines()[1].split(',')[2]},"
    table.write_text(table.read_text().replace(name, ",adrenal,"))
    both = [str(tmp_path / method / "cases.csv") for method in ("a", "b")]
    assert evaluate.main(["compare", *both]) == 2
    assert "no structure in common" in capsys.readouterr().err


def test_data_sets_for_development_and_for_tests_are_ranked_apart(work, tmp_path, capsys):
    for folder in ("dev", "one", "two"):
        for method in ("a", "b"):
            assert run(work, "-o", str(tmp_path / folder / method)) == 0
    spoiled = tmp_path / "dev" / "a" / "cases.csv"
    spoiled.write_text(spoiled.read_text().replace(",1,1,0,", ",0.8,0.9,4,"))
    capsys.readouterr()
    sets = tmp_path / "sets.toml"
    sets.write_text('[development]\nfirst = "dev"\n[test]\nsecond = "one"\nthird = "two"\n')
    assert evaluate.main(["rank", str(sets)]) == 0
    development, test = capsys.readouterr().out.split("Mean rank")[1:]
    assert "1 development data sets" in development and "2.00 (2.00 to 2.00)  a" in development
    assert "2 test data sets" in test and "1.50 (1.50 to 1.50)  a" in test


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[development]\na = "x"\n[test]\na = "y"', "has a twice"),
        ('[development]\na = "x"\n[test]\nb = "./x"', "x twice"),
        ('[training]\na = "x"', "not training"),
        ("", r"tables \[development\] and \[test\]"),
        ("[", "not a readable list"),
    ],
)
def test_data_sets_on_both_sides_are_refused(tmp_path, text, message):
    (tmp_path / "sets.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        data_sets([str(tmp_path / "sets.toml")])


def test_a_file_that_is_no_table_is_named(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("case,dice\n1,2\n")
    assert evaluate.main(["compare", str(tmp_path / "x.csv"), str(tmp_path / "x.csv")]) == 2
    assert "x.csv is no table" in capsys.readouterr().err


# The organs of BTCV in the order of their values, 1 to 13, as SelfMedMAE lists them.
ORGANS = [
    *("spleen", "right kidney", "left kidney", "gallbladder", "esophagus", "liver", "stomach"),
    *("aorta", "inferior vena cava", "portal and splenic veins", "pancreas"),
    *("right adrenal gland", "left adrenal gland"),
]
UNNAMED = Dataset("any", ())


@pytest.mark.parametrize(("name", "background"), [("btcv-13", []), ("btcv-13-background", [0])])
def test_btcv_13_is_the_validation_of_monais_split_and_every_organ(name, background):
    protocol = PROTOCOLS[name]
    assert protocol.cases == (35, 36, 37, 38, 39, 40)  # "validation" of its dataset_0.json
    assert list(protocol.measured(UNNAMED).values()) == [*background, *range(1, 14)]
    assert list(protocol.structures) == ORGANS


def test_btcv_8_is_the_test_list_of_transunet_and_its_organs():
    protocol = PROTOCOLS["btcv-8-transunet"]
    # lists_Synapse/test_vol.txt of TransUNet; the organs are btcv_8cls_idx of SelfMedMAE, from 0.
    listed = "0008 0022 0038 0036 0032 0002 0029 0003 0001 0004 0025 0035"
    assert sorted(protocol.cases) == sorted(int(number) for number in listed.split())
    expected = {ORGANS[index]: index + 1 for index in (0, 1, 2, 3, 5, 6, 7, 10)}
    assert protocol.measured(UNNAMED) == expected


BRATS_2023 = {
    1: "Non-enhancing tumor core",
    2: "Surrounding non-enhancing FLAIR hyperintensity",
    3: "Enhancing tissue",
}
DECATHLON = {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"}


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("brats-regions", {}, [(1, 2, 3), (1, 3), (3,)]),
        ("brats-regions-4", {}, [(1, 2, 4), (1, 4), (4,)]),
        ("brats-regions", {1: "NCR", 2: "ED", 3: "ET"}, [(1, 2, 3), (1, 3), (3,)]),
        ("brats-regions", {1: "NCR", 2: "ED", 4: "ET"}, [(1, 2, 4), (1, 4), (4,)]),
        ("brats-regions", {1: "NETC", 2: "SNFH", 3: "ET"}, [(1, 2, 3), (1, 3), (3,)]),
        ("brats-regions", BRATS_2023, [(1, 2, 3), (1, 3), (3,)]),
        ("brats-regions", DECATHLON, [(1, 2, 3), (2, 3), (3,)]),
        ("brats-regions-4", DECATHLON, [(1, 2, 3), (2, 3), (3,)]),
    ],
)
def test_regions_of_a_brain_tumor_follow_the_names_of_the_labels(name, labels, expected):
    measured = PROTOCOLS[name].measured(Dataset("brains", (), labels=labels))
    assert list(measured) == ["whole tumor", "tumor core", "enhancing tumor"]
    assert list(measured.values()) == expected


def test_a_data_set_of_regions_is_measured_by_its_own():
    own = tuple(Region(*r) for r in [("WT", (1, 2, 3), 1), ("TC", (2, 3), 2), ("ET", (3,), 3)])
    brains = Dataset("brains", (), labels={1: "WT", 2: "TC", 3: "ET"}, regions=own)
    assert PROTOCOLS["brats-regions"].measured(brains) == {r.name: r.labels for r in own}


def test_the_core_of_the_decathlons_brain_tumors_is_not_their_edema(work, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(work / "data", data)
    description = json.loads((data / "dataset.json").read_text())
    description["labels"] = {"0": "background", **DECATHLON}
    (data / "dataset.json").write_text(json.dumps(description))
    for path in (data / "labelsTr").iterdir():
        label = read_volume(path)
        array = label.array.copy()
        array[:, 3:6][array[:, 3:6] == 3] = 2  # the package finds 3 in both halves
        write_volume(Volume(array, label.geometry), path)
    command = ["segment", str(work / "package"), str(data), "--protocol", "brats-regions"]
    assert evaluate.main([*command, "-o", str(tmp_path / "out")]) == 0
    rows = read_cases(tmp_path / "out/cases.csv")
    assert {row["structure"]: row["dice"] for row in rows} == pytest.approx(
        {"whole tumor": 1, "tumor core": 1, "enhancing tumor": 2 / 3}, abs=1e-4
    )


@pytest.mark.parametrize("command", ["segment", "classify"])
def test_a_mistyped_device_is_refused_before_anything_is_read(tmp_path, capsys, command):
    with pytest.raises(SystemExit):
        evaluate.main([command, "x", str(tmp_path), "-o", str(tmp_path / "o"), "--device", "gpu"])
    assert "'gpu'" in (said := capsys.readouterr().err) and "cuda" in said
