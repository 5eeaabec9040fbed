"""How intensities are normalized: as channels are called, or as `prepare.py` is told."""

import json
from dataclasses import replace

import numpy as np
import pytest

import prepare
from mim.caching import PrepareOptions, prepare_dataset
from mim.evaluation import model_spec
from MIMSegment.Logic.engine import segment
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Volume, read_volume, write_volume
from small_sets import decathlon, nnunet, picture, read, scan

OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)


def schemes(cache):
    found = read(cache, "plan.json")["preprocessing"]["normalization"]
    return [item["scheme"] + ("_nonzero" if item["nonzero"] else "") for item in found]


def called(data, *names):
    """Call the channels of a data set so."""
    description = json.loads((data / "dataset.json").read_text())
    description["channel_names"] = {str(number): name for number, name in enumerate(names)}
    (data / "dataset.json").write_text(json.dumps(description))
    return data


def stripped(folder, count=3):
    """Volumes that are 0 but for a box of 8 x 14 x 12 voxels."""
    decathlon(folder, count)
    for index in range(count):
        image, _ = scan(index)
        array = np.zeros_like(image.array)
        array[:, 2:10, 4:18, 3:15] = image.array[:, 2:10, 4:18, 3:15]
        write_volume(Volume(array, image.geometry), folder / f"imagesTr/case_{index}.nii.gz")
    return folder


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("noNorm", "rescale_to_0_1"), ["none", "rescale_to_01"]),
        (("zscore", "rgb_to_0_1"), ["zscore", "rgb_to_01"]),
        (("CT", "T2"), ["ct", "zscore"]),
    ],
)
def test_channels_are_normalized_as_nnunet_would_by_their_names(tmp_path, names, expected):
    data = called(nnunet(tmp_path / "raw", {"background": 0, "left": 1, "right": 4}), *names)
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    assert schemes(tmp_path / "cache") == expected
    case = read(tmp_path / "cache", "cases.json")["cases"][0]
    image = np.load(tmp_path / "cache" / case["image"])
    if names[0] == "noNorm":
        assert image[0].max() > 200 and image[1].min() == 0 and image[1].max() == 1


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (["zscore_nonzero"], ["zscore_nonzero"] * 2),
        (["none", "ct"], ["none", "ct"]),
        ([], ["zscore"] * 2),
    ],
)
def test_one_scheme_is_of_all_inputs_and_several_are_of_each(tmp_path, chosen, expected):
    data = nnunet(tmp_path / "raw", {"background": 0, "left": 1, "right": 4})
    command = [str(data), str(tmp_path / "cache"), "--jobs", "1", "--stages", "3"]
    command += ["--patch-voxels", "4000", *(["--normalization", *chosen] if chosen else [])]
    assert prepare.main(command) == 0
    assert schemes(tmp_path / "cache") == expected


def test_another_number_of_schemes_than_inputs_is_refused(tmp_path):
    data = nnunet(tmp_path / "raw", {"background": 0, "left": 1, "right": 4})
    with pytest.raises(InputError, match=r"3 schemes, but there are 2 inputs \(T2, ADC\)"):
        prepare_dataset(data, tmp_path / "cache", replace(OPTIONS, normalization=("ct",) * 3))


def test_what_was_stripped_stays_zero_and_counts_for_no_mean(tmp_path):
    options = replace(OPTIONS, normalization=("zscore_nonzero",))
    prepare_dataset(stripped(tmp_path / "data"), tmp_path / "cache", options)
    case = read(tmp_path / "cache", "cases.json")["cases"][0]
    image = np.load(tmp_path / "cache" / case["image"]).astype(np.float32)
    inside = image[:, 2:10, 4:18, 3:15]
    assert abs(float(inside.mean())) < 0.01 and float(inside.std()) == pytest.approx(1, abs=0.01)
    assert np.count_nonzero(image) <= inside.size


def test_volumes_are_cut_to_what_is_not_zero_and_results_lie_on_the_whole_image(tmp_path):
    data = stripped(tmp_path / "data")
    options = replace(OPTIONS, normalization=("zscore_nonzero",), crop_nonzero=True)
    prepare_dataset(data, tmp_path / "cache", options)
    plan = read(tmp_path / "cache", "plan.json")
    assert plan["median_shape"] == [8, 14, 12]
    case = read(tmp_path / "cache", "cases.json")["cases"][0]
    assert case["shape"] == [1, 8, 14, 12]
    label = np.load(tmp_path / "cache" / case["label"])
    volume, truth = read_volume(case["source"]), read_volume(case["source_label"]).array[0]
    assert np.array_equal(np.array([0, 1, 4])[label], truth[2:10, 4:18, 3:15])
    left = np.array([0, 1, 0], np.float32)[:, None, None, None]
    result = segment(volume, model_spec(plan), lambda tile: left * np.ones_like(tile[:, :1]))
    assert result.labels.shape == truth.shape
    assert (result.labels[2:10, 4:18, 3:15] == 1).all() and result.labels.sum() == 8 * 14 * 12


def test_pictures_are_not_cut(tmp_path):
    for name in ("a", "b"):
        for index in range(2):
            picture(tmp_path / f"data/{name}/{index}.png", index)
    with pytest.raises(InputError, match="--crop-nonzero is for volumes"):
        options = replace(OPTIONS, picture_size=32, crop_nonzero=True)
        prepare_dataset(tmp_path / "data", tmp_path / "cache", options)


def test_values_that_a_cache_cannot_hold_are_refused_by_name(tmp_path):
    decathlon(tmp_path / "data", count=2)
    image, _ = scan(0)
    large = Volume(image.array * 1000, image.geometry)
    write_volume(large, tmp_path / "data/imagesTr/case_0.nii.gz")
    with pytest.raises(InputError, match=r"case_0\.nii\.gz: .* choose another --normalization"):
        prepare_dataset(tmp_path / "data", tmp_path / "cache",
                        replace(OPTIONS, normalization=("none",)))  # fmt: skip
    assert not (tmp_path / "cache").exists()
