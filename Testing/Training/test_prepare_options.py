"""What prepare.py refuses before it reads anything."""

import pytest

import prepare
from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from MIMSegment.Logic.errors import InputError
from small_sets import decathlon, picture, put, read, scan


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("spacing", (0.0, 1.0, 1.0)),
        ("spacing", (1.0, 1.0, float("nan"))),
        ("held_back", 1.5),
        ("held_back", -0.1),
        ("patch_voxels", 0),
        ("picture_size", 0),
        ("stages", 0),
        ("jobs", -3),
    ],
)
def test_impossible_numbers_are_refused_by_the_option(name, value):
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} "):
        PrepareOptions(**{name: value})


def test_a_name_that_excludes_nobody_is_an_error(tmp_path, capsys):
    decathlon(tmp_path / "data", count=3)
    command = [str(tmp_path / "data"), str(tmp_path / "cache"), "--jobs", "1"]
    assert prepare.main([*command, "--exclude", "case_1", "case_9"]) == 2
    said = capsys.readouterr().err
    assert "case_9" in said and "called like case_0" in said and "case_1" not in said
    assert not (tmp_path / "cache").exists()


def test_nobody_left_to_train_on_is_said(tmp_path):
    decathlon(tmp_path / "data", count=2)
    (tmp_path / "test.txt").write_text("case_0\ncase_1\n")
    options = PrepareOptions(patch_voxels=4000, jobs=1, test_list=str(tmp_path / "test.txt"))
    with pytest.raises(InputError, match="nobody is left to train on"):
        prepare_dataset(tmp_path / "data", tmp_path / "cache", options)


@pytest.mark.parametrize(("written", "stored"), [("mri", "MR"), ("ct", "CT"), ("PET", "PT")])
def test_a_modality_is_stored_as_dicom_writes_it(tmp_path, written, stored):
    decathlon(tmp_path / "data", count=2)
    command = [str(tmp_path / "data"), str(tmp_path / "cache"), "--jobs", "1", "--stages", "2"]
    assert prepare.main([*command, "--patch-voxels", "4000", "--modality", written]) == 0
    (item,) = read(tmp_path / "cache", "plan.json")["inputs"]
    assert item["modality"] == stored


def test_inputs_of_what_is_no_bids_tree_are_refused(tmp_path):
    put(tmp_path / "a.nii.gz", scan(0)[0])
    with pytest.raises(InputError, match="--inputs is for BIDS trees"):
        find_dataset(tmp_path, ["T1w", "FLAIR"])


@pytest.mark.parametrize("separator", [";", "\t"])
def test_tables_may_have_semicolons_or_tabs(tmp_path, separator):
    rows = [["image", "class", "group"], ["p0.png", "sick, maybe", "1"], ["p1.png", "well", "2"]]
    for index in range(2):
        picture(tmp_path / f"p{index}.png", index)
    (tmp_path / "cases.csv").write_text("\n".join(separator.join(row) for row in rows))
    dataset = find_dataset(tmp_path)
    assert dataset.classes == ("sick, maybe", "well")
    assert [case.subject for case in dataset.cases] == ["1", "2"]


def test_a_table_in_another_encoding_is_told_in_words(tmp_path):
    rows = [f"p{i}.png,x" for i in range(1000)] + ["Müller.png,y"]
    (tmp_path / "t.csv").write_bytes("\n".join(["image,class", *rows]).encode("latin-1"))
    with pytest.raises(InputError, match="save it as CSV in UTF-8"):
        find_dataset(tmp_path / "t.csv")
