import json

import numpy as np
import pytest

import prepare
from killed_job import end_of_memory
from mim import caching, inspection
from mim.caching import PrepareOptions, prepare_dataset
from mim.cases import find_dataset
from mim.planning import kernel_sizes, patch_and_strides, working_spacing
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Geometry, Volume, write_volume
from small_sets import decathlon, read, scan

OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1)


def test_cache_holds_normalized_half_precision_volumes_and_channel_numbers(tmp_path):
    decathlon(tmp_path / "data")
    prepare_dataset(tmp_path / "data", tmp_path / "cache", OPTIONS)
    entry = read(tmp_path / "cache", "cases.json")["cases"][0]
    image = np.load(tmp_path / "cache" / entry["image"], mmap_mode="r")
    label = np.load(tmp_path / "cache" / entry["label"], mmap_mode="r")
    assert image.dtype == np.float16 and list(image.shape) == entry["shape"] == [1, 12, 20, 18]
    assert abs(float(image.astype(np.float32).mean())) < 0.05
    assert set(np.unique(label)) == {0, 1, 2}  # values 1 and 4 are the network's channels 1 and 2
    plan = read(tmp_path / "cache", "plan.json")
    assert [item["value"] for item in plan["labels"]] == [1, 4]
    assert plan["preprocessing"]["spacing"] == [3.0, 1.0, 1.0]


def test_no_subject_is_on_both_sides_of_the_split(tmp_path):
    subjects = {f"case_{i}": f"subject_{i // 2}" for i in range(8)}
    decathlon(tmp_path / "data", subjects=subjects)
    for seed in range(5):
        options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, held_back=0.5, seed=seed)
        prepare_dataset(tmp_path / "data", tmp_path / "cache", options)
        split = read(tmp_path / "cache", "split.json")
        assert not set(split["train"]) & set(split["held_back"])
        assert set(split["train"]) | set(split["held_back"]) == set(subjects.values())
        assert len(split["held_back"]) == 2


def test_the_fingerprint_is_taken_from_training_subjects_alone(tmp_path):
    decathlon(tmp_path / "data")
    prepare_dataset(tmp_path / "data", tmp_path / "cache", OPTIONS)
    split = read(tmp_path / "cache", "split.json")
    assert read(tmp_path / "cache", "fingerprint.json")["cases"] == len(split["train"])


def test_an_excluded_subject_leaves_no_trace(tmp_path):
    decathlon(tmp_path / "data")
    options = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, exclude=("case_3",))
    prepare_dataset(tmp_path / "data", tmp_path / "cache", options)
    for path in (tmp_path / "cache").rglob("*"):
        assert "case_3" not in path.name
        if path.suffix == ".json":
            assert "case_3" not in path.read_text()


def test_unusable_volumes_are_named_with_the_reason_and_left_out(tmp_path, capsys):
    data = tmp_path / "data"
    decathlon(data, count=10)
    image, label = scan(0)

    def put(index, volume, part="imagesTr"):
        write_volume(volume, data / part / f"case_{index}.nii.gz")

    put(0, Volume(np.full_like(image.array, 7), image.geometry))
    put(1, Volume(np.where(image.array > 150, np.nan, image.array), image.geometry))
    (data / "imagesTr/case_2.nii.gz").write_bytes(b"not an image")
    shifted = Geometry.from_parts((12, 20, 18), (3, 1, 1), (50, 2, 3))
    put(3, Volume(label.array, shifted), "labelsTr")
    put(4, Volume((label.array == 1) * np.uint8(9), scan(4)[0].geometry), "labelsTr")
    assert prepare.main([str(data), str(tmp_path / "cache"), "--jobs", "1",
                         "--patch-voxels", "4000", "--stages", "3"]) == 0  # fmt: skip
    excluded = {e["id"]: e["reason"] for e in read(tmp_path / "cache", "cases.json")["excluded"]}
    words = ("constant", "NaN", "case_2.nii.gz", "not on the grid", "9")
    for index, word in enumerate(words):
        assert word in excluded[f"case_{index}"]
        assert f"case_{index}.nii.gz" in excluded[f"case_{index}"]
    assert len(read(tmp_path / "cache", "cases.json")["cases"]) == 5
    printed = capsys.readouterr().out
    assert "5 volumes left out" in printed and "not on the grid" in printed


@pytest.mark.parametrize(
    ("values", "reason"),
    [({0: 0, 1: 300}, "from 0 to 300; labels are from 0 to 255"), ({0: -1, 1: 1}, "from -1 to 1"),
     ({0: 0, 1: 0.5}, "fractions; make it again")],
)  # fmt: skip
def test_values_that_no_label_can_have_are_told_with_the_way_out(tmp_path, values, reason):
    data = tmp_path / "data"
    decathlon(data, count=3)
    description = json.loads((data / "dataset.json").read_text())
    (data / "dataset.json").write_text(json.dumps({**description, "labels": {}}))
    image, label = scan(0)
    found = np.where(label.array == 0, values[0], values[1]).astype(np.float32)
    write_volume(Volume(found, image.geometry), data / "labelsTr/case_0.nii.gz")
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    (excluded,) = read(tmp_path / "cache", "cases.json")["excluded"]
    assert excluded["id"] == "case_0" and reason in excluded["reason"]


def test_a_folder_of_scans_without_labels_becomes_a_cache_to_pretrain_on(tmp_path):
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    for index in range(3):
        write_volume(scan(index)[0], tmp_path / "scans" / "deep" / f"scan_{index}.nrrd")
    prepare_dataset(tmp_path / "scans", tmp_path / "cache", OPTIONS)
    cases = read(tmp_path / "cache", "cases.json")["cases"]
    assert [c["label"] for c in cases] == [None] * 3
    assert read(tmp_path / "cache", "split.json")["held_back"] == []


def test_a_folder_that_is_no_cache_is_never_emptied(tmp_path):
    decathlon(tmp_path / "data")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not a cache"):
        prepare_dataset(tmp_path / "data", tmp_path / "home", OPTIONS)
    assert (tmp_path / "home" / "thesis.txt").exists()


def test_a_cache_of_other_data_is_not_replaced(tmp_path, capsys):
    for name in ("one", "two"):
        decathlon(tmp_path / name, count=2)
    cache = tmp_path / "cache"
    for _ in range(2):  # the same data replace their own
        prepare_dataset(tmp_path / "one", cache, OPTIONS)
    before = (cache / "cases.json").read_bytes()
    assert prepare.main([str(tmp_path / "two"), str(cache)]) == 2
    said = capsys.readouterr().err
    assert str(tmp_path / "one") in said and "remove it" in said and "another folder" in said
    assert (cache / "cases.json").read_bytes() == before
    (cache / "cases.json").write_text("[")
    with pytest.raises(InputError, match=r"cases\.json cannot be read"):
        prepare_dataset(tmp_path / "one", cache, OPTIONS)


def test_a_killed_process_is_told_with_the_way_out(tmp_path, capsys, monkeypatch):
    decathlon(tmp_path / "data", count=4)
    monkeypatch.setattr(inspection, "_fingerprint_or_reason", end_of_memory)
    command = [str(tmp_path / "data"), str(tmp_path / "cache"), "--jobs"]
    assert prepare.main([*command, "2"]) == 2
    assert "One of 2 processes was killed" in (said := capsys.readouterr().err)
    assert "memory" in said and "--jobs 1" in said and "Traceback" not in said
    assert not (tmp_path / "cache").exists()
    assert prepare.main([*command, "1"]) == 2
    assert "with more memory" in capsys.readouterr().err


def test_stopping_by_hand_leaves_the_cache_as_it_was(tmp_path, capsys, monkeypatch):
    decathlon(tmp_path / "data", count=4)
    command = [str(tmp_path / "data"), str(tmp_path / "cache"), "--jobs", "1"]
    assert prepare.main(command) == 0
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()}

    def pressed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(caching, "make_plan", pressed)
    assert prepare.main([*command, "--seed", "1"]) == 130
    assert "stopped; the cache is as it was before" in capsys.readouterr().err
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "cache").iterdir()} == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "data"]


def test_nothing_usable_is_an_error_that_lists_why(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no NIfTI"):
        find_dataset(tmp_path / "empty")
    (tmp_path / "empty" / "broken.nii").write_bytes(b"x" * 400)
    with pytest.raises(InputError, match=r"broken\.nii"):
        prepare_dataset(tmp_path / "empty", tmp_path / "cache", OPTIONS)
    assert not (tmp_path / "cache").exists()


def test_plan_follows_the_anisotropy_of_the_data():
    assert working_spacing([(3.5, 1.25, 1.25)] * 4) == (3.5, 1.25, 1.25)
    patch, strides = patch_and_strides((24, 160, 160), (3.5, 1.25, 1.25), 150_000, 4)
    assert np.prod(patch) <= 1.3 * 150_000
    assert strides[0] == (1, 1, 1) and strides[1] == (1, 2, 2)
    assert not np.any(np.array(patch) % np.prod(strides, axis=0))
    assert kernel_sizes(strides, (3.5, 1.25, 1.25))[0] == (1, 3, 3)
    assert kernel_sizes(strides, (1, 1, 1))[0] == (3, 3, 3)


def test_a_case_of_unknown_subject_is_left_out_where_subjects_are_listed(tmp_path):
    decathlon(tmp_path / "data", subjects={f"case_{i}": str(i // 2) for i in range(7)})
    prepare_dataset(tmp_path / "data", tmp_path / "cache", OPTIONS)
    (excluded,) = read(tmp_path / "cache", "cases.json")["excluded"]
    assert excluded["id"] == "case_7" and "subject" in excluded["reason"]


@pytest.mark.real_data
def test_hippocampus_is_split_by_subject_not_by_side(data_dir, tmp_path):
    prepare_dataset(data_dir / "hippocampus_mr", tmp_path / "cache", PrepareOptions())
    split = read(tmp_path / "cache", "split.json")
    for case in read(tmp_path / "cache", "cases.json")["cases"]:
        number = int(case["id"].split("_")[1])
        assert case["subject"] == str((number + 1) // 2)
    assert not set(split["train"]) & set(split["held_back"])
