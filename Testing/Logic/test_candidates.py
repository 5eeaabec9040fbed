"""One image of a folder chosen by number, UID or name, and the lists that name them."""

import numpy as np
import pytest

from dicom_writer import noise, write_series
from MIMSegment.Logic.candidates import find_candidates, select_candidate
from MIMSegment.Logic.cli import main
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.image_file import write_channels
from MIMSegment.Logic.inputs import read_images
from MIMSegment.Logic.volume import Geometry, Volume, read_volume
from tiny_package import threshold_spec

NUMBERS = {2: "Thorax 1.0", 3: "Thorax 5.0", 12: "Abdomen 5.0"}


@pytest.fixture
def study(tmp_path):
    """Three CT series; the first has a bright corner, the others are dark."""
    for number, description in NUMBERS.items():
        array = np.full((6, 20, 20), -1000, np.int16)
        array[:3, :8, : 2 * number] = 900
        write_series(
            tmp_path / "study" / f"S{number}",
            array,
            modality="CT",
            series_uid=f"1.2.840.{number}",
            tags={"SeriesDescription": description, "SeriesNumber": number},
        )
    return tmp_path / "study"


@pytest.mark.parametrize(
    ("which", "number"),
    [("2", 2), ("12", 12), ("1.2.840.3", 3), ("1.2.840.1", 12), ("thorax 1", 2), ("Abdomen", 12),
     ("Thorax 5.0", 3), ("3: Thorax 5.0, CT, axial, 6 slices of 20×20", 3)],
)  # fmt: skip
def test_an_image_is_chosen_by_number_uid_or_name(study, which, number):
    chosen = select_candidate(find_candidates([study]), which)
    assert chosen.header["SeriesNumber"] == number


@pytest.mark.parametrize("which", ["Thorax", "1.2.840", "5", "T2w", "axial"])
def test_a_choice_that_fits_none_or_several_lists_them(study, which):
    with pytest.raises(InputError, match=r"fits (no|several) image.*Thorax 1\.0.*Thorax 5\.0"):
        select_candidate(find_candidates([study]), which)


def test_series_that_share_a_name_are_told_apart_by_their_uid(study):
    write_series(study / "again", noise(), modality="CT", series_uid="1.2.840.77",
                 tags={"SeriesDescription": "Thorax 1.0", "SeriesNumber": 2})  # fmt: skip
    write_series(study / "again2", noise(), modality="CT", series_uid="1.2.840.78",
                 tags={"SeriesDescription": "Thorax 1.0", "SeriesNumber": 2})  # fmt: skip
    with pytest.raises(InputError, match=r"UID 1\.2\.840\.77; .*UID 1\.2\.840\.78"):
        select_candidate(find_candidates([study]), "2")


def test_what_macos_and_killed_processes_leave_in_a_folder_is_no_image(tmp_path):
    for name in ("t2.nii.gz", "._t2.nii.gz", ".mimsegment-0a1b2c3d.nii.gz"):
        (tmp_path / name).write_bytes(b"")
    assert [candidate.name for candidate in find_candidates([tmp_path])] == ["t2.nii.gz"]


def test_segment_takes_the_chosen_series_and_says_so(study, package, tmp_path, capsys):
    command = ["segment", str(study), "-m", str(package.path), "-q", "-o", str(tmp_path / "o.nrrd")]
    assert main(command) == 2
    line = capsys.readouterr().err
    for number, description in NUMBERS.items():
        assert f"{number}: {description}" in line
    assert "--series NUMBER" in line
    assert main([*command, "--series", "3", "--device", "cpu"]) == 0
    assert "CT: 3: Thorax 5.0" in capsys.readouterr().out
    source = read_volume(study / "S3")
    result = read_volume(tmp_path / "o.nrrd")
    assert np.array_equal(result.array == 3, source.array == 900)


def test_a_model_of_several_inputs_is_told_which_input_a_series_is_for(tmp_path):
    spec = threshold_spec(inputs=2)
    for number, name in enumerate(("first", "second", "third"), 1):
        write_series(tmp_path / "study" / name, noise(seed=number),
                     tags={"SeriesDescription": name, "SeriesNumber": number})  # fmt: skip
    images, explanation = read_images([str(tmp_path / "study")], spec, ["ADC=3", "T2w=second"])
    assert np.array_equal(images[0].array[0], noise(seed=2))
    assert np.array_equal(images[1].array[0], noise(seed=3))
    assert all("chosen by the user" in sentence for sentence in explanation)
    with pytest.raises(InputError, match="say which one as in --series T2w=NUMBER"):
        read_images([str(tmp_path / "study")], spec, ["3"])


def four_channels(path):
    array = noise((4, 5, 6, 7))
    write_channels(Volume(array, Geometry.from_parts((5, 6, 7), (3, 1, 1))), path)
    return array


def test_channels_of_a_file_are_given_to_inputs_by_number(tmp_path):
    spec = threshold_spec(inputs=2)
    path = tmp_path / "all.nii.gz"
    array = four_channels(path)
    images, explanation = read_images([f"ADC={path}#2", f"T2w={path}#4"], spec)
    assert np.array_equal(images[0].array, array[[3]])
    assert np.array_equal(images[1].array, array[[1]])
    assert explanation[1] == "ADC: all.nii.gz#2 (chosen by the user)"
    (image,), _ = read_images([f"{path}#3"], threshold_spec())
    assert np.array_equal(image.array, array[[2]])


def test_a_channel_that_is_not_there_and_a_wrong_number_of_channels_are_told(tmp_path):
    spec = threshold_spec(inputs=2)
    path = tmp_path / "all.nii.gz"
    four_channels(path)
    with pytest.raises(InputError, match=r"all.nii.gz has 4 channels; choose one of #1 to #4"):
        read_images([f"ADC={path}#5", f"T2w={path}#1"], spec)
    with pytest.raises(InputError, match=r"name the channel of each as in T2w=.*all.nii.gz#1"):
        read_images([str(path)], spec)
    with pytest.raises(InputError, match="does not exist"):
        read_images([f"ADC={path}#0", f"T2w={path}#1"], spec)


def test_a_file_whose_name_ends_like_a_channel_is_that_file(tmp_path):
    write_series(tmp_path, noise(), names=["IM", "IM#1", "IM#2", "IM#3", "IM#4"])
    (found,) = find_candidates([tmp_path / "IM#2"])
    assert np.array_equal(found.read().array[0], noise())


def test_b_values_under_one_series_number_are_chosen_by_their_part(tmp_path):
    for b in (50, 800):
        tags = {"DiffusionBValue": float(b), "SeriesNumber": 6}
        names = [f"{b}-{k}" for k in range(5)]
        write_series(tmp_path, noise(seed=b), names=names, series_uid="1.2.3", tags=tags)
    candidates = find_candidates([tmp_path])
    assert select_candidate(candidates, "b 800").header["DiffusionBValue"] == 800
    with pytest.raises(InputError, match=r"b 50.*b 800"):
        select_candidate(candidates, "6")


def test_info_lists_the_images_of_a_study_and_describes_one(study, capsys):
    assert main(["info", str(study)]) == 0
    printed = capsys.readouterr().out
    for number, description in NUMBERS.items():
        assert f"{number}: {description}, CT, axial" in printed
        assert f"UID 1.2.840.{number}, in {study / f'S{number}'}" in printed
    assert main(["info", str(study), "--series", "Abdomen"]) == 0
    printed = capsys.readouterr().out
    assert "20 × 20 × 6 (x, y, z)" in printed and "0.75 × 0.5 × 2 mm" in printed
    assert "-1000 to 900" in printed
    assert "DOE" not in printed and "4711" not in printed


def test_info_on_neither_a_package_nor_images_says_what_both_would_be(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("nothing")
    assert main(["info", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "metadata.json" in line and "DICOM" in line
