"""What a data set looks like on disk: every layout that prepare.py reads, and what it refuses."""

import numpy as np
import pytest
from PIL import Image

import prepare
from mim.caching import PrepareOptions, prepare_dataset, split_subjects
from mim.cases import Case, find_dataset
from mim.regions import brats_regions
from MIMSegment.Logic.errors import InputError
from MIMSegment.Logic.volume import Volume
from small_sets import nnunet, picture, put, read, scan, table

OPTIONS = PrepareOptions(patch_voxels=4000, stages=3, jobs=1, picture_size=32)


def test_nnunet_raw_data_become_cases_with_a_channel_for_each_file(tmp_path):
    data = nnunet(tmp_path / "raw", {"background": 0, "left": 1, "right": 4})
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    cases = {case["id"]: case for case in read(tmp_path / "cache", "cases.json")["cases"]}
    assert set(cases) == {"case_0", "case_1", "case_2"}
    assert cases["case_0"]["shape"][0] == 2 and len(cases["case_0"]["source"]) == 2
    assert all(case["label"] for case in cases.values())
    plan = read(tmp_path / "cache", "plan.json")
    assert [i["name"] for i in plan["inputs"]] == ["T2", "ADC"]
    assert plan["labels"] == [{"value": 1, "name": "left"}, {"value": 4, "name": "right"}]


def test_regions_of_nnunet_are_unions_that_paint_their_value(tmp_path):
    labels = {"background": 0, "both": [1, 4], "right": 4}
    data = nnunet(tmp_path / "raw", labels, order=(1, 4))
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    plan = read(tmp_path / "cache", "plan.json")
    assert plan["regions"] == [
        {"name": "both", "labels": [1, 4], "value": 1},
        {"name": "right", "labels": [4], "value": 4},
    ]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (
            {1: "necrotic core (NCR)", 2: "edema (ED)", 4: "enhancing tumor (ET)"},
            [((1, 2, 4), 2), ((1, 4), 1), ((4,), 4)],
        ),
        ({1: "a", 2: "b", 4: "c"}, [((1, 2, 4), 2), ((1, 4), 1), ((4,), 4)]),
        (
            {1: "NCR", 2: "ED", 3: "ET"},
            [((1, 2, 3), 2), ((1, 3), 1), ((3,), 3)],
        ),
        (
            {1: "edema", 2: "non-enhancing tumor", 3: "enhancing tumour"},
            [((1, 2, 3), 1), ((2, 3), 2), ((3,), 3)],
        ),
        (
            {1: "necrosis", 2: "oedema", 3: "non-enhancing", 4: "enhancing"},
            [((1, 2, 3, 4), 2), ((1, 3, 4), 1), ((4,), 4)],
        ),
    ],
)
def test_brats_regions_follow_the_names_whatever_the_coding(names, expected):
    regions = brats_regions(names)
    assert [r.name for r in regions] == ["whole tumor", "tumor core", "enhancing tumor"]
    assert [(r.labels, r.value) for r in regions] == expected


def test_unnamed_1_2_3_is_not_guessed():
    with pytest.raises(InputError, match="not clear which are edema"):
        brats_regions({1: "label 1", 2: "label 2", 3: "label 3"})


def test_a_missing_channel_leaves_its_case_out_by_name(tmp_path):
    data = nnunet(tmp_path / "raw", {"background": 0, "left": 1, "right": 4})
    (data / "imagesTr/case_1_0001.nii.gz").unlink()
    prepare_dataset(data, tmp_path / "cache", OPTIONS)
    (excluded,) = read(tmp_path / "cache", "cases.json")["excluded"]
    assert excluded["id"] == "case_1" and "case_1_0001" in excluded["reason"]


def bids(folder):
    for subject in ("01", "02"):
        for session in ("1", "2"):
            image, label = scan(int(subject))
            name = f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}"
            put(folder / f"{name}_T1w.nii.gz", image)
            put(folder / f"{name}_FLAIR.nii.gz", image)
            put(folder / f"derivatives/manual/{name}_dseg.nii.gz", label)
    (folder / "derivatives/manual/dseg.tsv").write_text("index\tname\n1\tleft\n4\tright\n")
    return folder


def test_bids_tree_is_split_by_subject_and_every_image_is_a_case(tmp_path):
    dataset = find_dataset(bids(tmp_path / "study"))
    assert len(dataset.cases) == 8
    assert {case.subject for case in dataset.cases} == {"sub-01", "sub-02"}
    assert all(case.label is None for case in dataset.cases)  # of which contrast is it?


def test_bids_inputs_become_channels_and_take_the_label(tmp_path):
    bids(tmp_path / "study")
    options = PrepareOptions(
        patch_voxels=4000, stages=3, jobs=1, inputs=("T1w", "FLAIR"), held_back=0.5
    )
    prepare_dataset(tmp_path / "study", tmp_path / "cache", options)
    cases = read(tmp_path / "cache", "cases.json")["cases"]
    assert len(cases) == 4 and all(case["label"] and case["shape"][0] == 2 for case in cases)
    assert read(tmp_path / "cache", "plan.json")["labels"][1]["name"] == "right"
    assert len(read(tmp_path / "cache", "split.json")["held_back"]) == 1


def test_table_of_pictures_has_classes_and_groups(tmp_path):
    rows = [f"img/p{i}.png,{i % 2},{'sick' if i % 2 else 'well'},g{i // 2}" for i in range(6)]
    data = table(tmp_path / "x", "\n".join(["file,label,class,group", *rows]))
    options = PrepareOptions(stages=3, jobs=1, picture_size=32, held_back=0.34)
    assert "Classes: sick 3, well 3." in prepare_dataset(data, tmp_path / "cache", options)
    plan, split = (read(tmp_path / "cache", f"{name}.json") for name in ("plan", "split"))
    assert (
        plan["dims"] == 2 and plan["patch"] == [1, 32, 32] and plan["classes"] == ["sick", "well"]
    )
    assert plan["strides"][1] == [2, 2] and not plan["multi_label"]
    assert not set(split["train"]) & set(split["held_back"])
    cases = read(tmp_path / "cache", "cases.json")["cases"]
    assert [case["target"] for case in cases] == [1, 0, 1, 0, 1, 0]
    image = np.load(tmp_path / "cache" / cases[0]["image"])
    assert image.shape == (1, 1, 32, 24) and image.dtype == np.float16  # longer side fills
    assert abs(float(image.astype(float).mean())) < 0.05


def test_findings_with_bars_and_columns_of_zeros_and_ones_are_multi_label(tmp_path):
    findings = ["Mass|Nodule", "No Finding", "Mass"]
    rows = [f"img/p{i}.png,{f},{i}" for i, f in enumerate(findings)]
    header = "Image Index,Finding Labels,Patient ID"
    bars = find_dataset(table(tmp_path / "a", "\n".join([header, *rows])))
    assert bars.classes == ("Mass", "Nodule") and bars.multi_label
    assert [case.target for case in bars.cases] == [(1, 1), (0, 0), (1, 0)]
    assert [case.subject for case in bars.cases] == ["0", "1", "2"]
    rows = ["img/p0.png,1,0", "img/p1.png,1,1"]
    columns = find_dataset(table(tmp_path / "b", "\n".join(["image,Mass,Nodule", *rows])))
    assert columns.classes == ("Mass", "Nodule") and columns.cases[1].target == (1, 1)


def test_table_of_volumes_may_name_label_images_and_channels(tmp_path):
    image, label = scan(0)
    for index in range(2):
        put(tmp_path / f"t2_{index}.nii.gz", image)
        put(tmp_path / f"adc_{index}.nii.gz", image)
        put(tmp_path / f"mask_{index}.nii.gz", label)
    (tmp_path / "cases.csv").write_text(
        "image_T2w,image_ADC,label,subject\n"
        "t2_0.nii.gz,adc_0.nii.gz,mask_0.nii.gz,a\nt2_1.nii.gz,adc_1.nii.gz,,b\n"
    )
    dataset = find_dataset(tmp_path)
    assert dataset.inputs == ("T2w", "ADC") and not dataset.classes
    assert [case.label is None for case in dataset.cases] == [False, True]
    assert dataset.cases[0].read().array.shape[0] == 2


def test_folders_of_pictures_are_classes_with_the_split_they_come_with(tmp_path):
    for split, name, count in (
        ("train", "a", 3),
        ("train", "b", 3),
        ("test", "a", 1),
        ("test", "b", 2),
    ):
        for index in range(count):
            picture(tmp_path / "set" / split / name / f"{index}.jpg", index)
    prepare_dataset(tmp_path / "set", tmp_path / "cache", OPTIONS)
    assert read(tmp_path / "cache", "split.json")["held_back"] == [
        "test_a_0", "test_b_0", "test_b_1"
    ]  # fmt: skip
    assert read(tmp_path / "cache", "plan.json")["classes"] == ["a", "b"]


def test_folders_of_volumes_are_patients_unless_it_is_said_that_they_are_classes(tmp_path):
    for name in ("a", "b"):
        for index in range(2):
            put(tmp_path / "set" / name / f"{index}.nii.gz", scan(index)[0])
    assert not find_dataset(tmp_path / "set").classes
    assert find_dataset(tmp_path / "set", classes_from_folders=True).classes == ("a", "b")


def test_pictures_beside_volumes_do_not_make_a_class_of_a_patient(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name / "scan" / "t2.nii.gz", scan(0)[0])
        picture(tmp_path / name / "preview.png", 0)
    dataset = find_dataset(tmp_path)
    assert not dataset.classes and [c.image.name for c in dataset.cases] == ["t2.nii.gz"] * 2


def test_medmnist_archive_keeps_its_own_split(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 5), ("val", 2), ("test", 3)):
        arrays[f"{split}_images"] = rng.integers(0, 255, (count, 28, 28), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 2)[:, None].astype(np.uint8)
    np.savez(tmp_path / "mini.npz", **arrays)
    prepare_dataset(tmp_path / "mini.npz", tmp_path / "cache", PrepareOptions(
        stages=3, jobs=1, picture_size=28))  # fmt: skip
    split = read(tmp_path / "cache", "split.json")
    assert len(split["train"]) == 7 and split["held_back"] == [f"test_{i:06d}" for i in range(3)]
    case = read(tmp_path / "cache", "cases.json")["cases"][1]
    stored = np.load(tmp_path / "cache" / case["image"])[0, 0].astype(float)
    original = arrays["train_images"][1].astype(float)
    assert np.corrcoef(stored.ravel(), original.ravel())[0, 1] > 0.99


def test_a_test_list_holds_back_what_it_names(tmp_path):
    rows = [f"img/p{i}.png,{'ab'[i % 2]}" for i in range(6)]
    data = table(tmp_path / "x", "\n".join(["file,class", *rows]))
    (tmp_path / "test.txt").write_text("p1.png\np4.png\n")
    options = PrepareOptions(
        stages=3, jobs=1, picture_size=32, test_list=str(tmp_path / "test.txt")
    )
    prepare_dataset(data, tmp_path / "cache", options)
    assert read(tmp_path / "cache", "split.json")["held_back"] == ["img_p1", "img_p4"]


def test_a_subject_on_both_sides_of_a_given_split_is_refused():
    cases = [
        Case(f"c{i}", "anna", (), target=i % 2, split="test" if i else "train") for i in range(2)
    ]
    with pytest.raises(InputError, match="anna is in training and test"):
        split_subjects(cases, 0.2, 0)


def test_every_class_is_held_back_in_proportion():
    cases = [Case(f"c{i}", f"s{i:03d}", (), target=int(i < 20)) for i in range(120)]
    held = set(split_subjects(cases, 0.25, 0)["held_back"])
    assert sum(case.subject in held for case in cases if case.target) == 5
    assert len(held) == 30


def test_unusable_pictures_are_named_and_left_out(tmp_path, capsys):
    rows = [f"img/p{i}.png,{'ab'[i % 2]}" for i in range(6)]
    data = table(tmp_path / "x", "\n".join(["file,class", *rows]))
    (data / "img/p0.png").write_bytes(b"no picture")
    Image.fromarray(np.full((40, 30), 7, np.uint8)).save(data / "img/p1.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 30, 3), np.uint8)).save(
        data / "img/p2.png"
    )
    (data / "img/p3.png").unlink()
    code = prepare.main([str(data), str(tmp_path / "cache"), "--jobs", "1", "--stages", "3",
                         "--picture-size", "32"])  # fmt: skip
    assert code == 0
    excluded = {e["id"]: e["reason"] for e in read(tmp_path / "cache", "cases.json")["excluded"]}
    words = {"img_p0": "p0.png", "img_p1": "constant", "img_p2": "3 channels", "img_p3": "p3.png"}
    assert set(excluded) == set(words)
    assert all(word in excluded[name] for name, word in words.items())
    assert "4 volumes left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,class\na,b\n", "no column image"),
        ("image,class\nimg/p0.png,a\nimg/p1.png,a\n", "only one class"),
        ("image,class\n", "no row"),
        ("image,class\nimg/p0.png,a\nimg/p0.png,b\n", "more than once"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_by_name(tmp_path, text, message):
    table(tmp_path, text)
    with pytest.raises(InputError, match=message) as error:
        find_dataset(tmp_path / "labels.csv")
    assert "labels.csv" in str(error.value)


def test_a_picture_that_shrinks_is_averaged_not_sampled(tmp_path):
    from mim.pictures import fit

    stripes = np.zeros((1, 1, 64, 64), np.float32)
    stripes[..., ::2] = 1.0
    small = fit(stripes, 16)
    assert small.shape == (1, 1, 16, 16) and np.allclose(small[..., 2:-2], 0.5, atol=0.1)


def test_volumes_with_classes_fit_whole_into_the_patch(tmp_path):
    for index in range(4):
        put(tmp_path / f"v{index}.nii.gz", scan(index, shape=(20, 40, 40), spacing=(1, 1, 1))[0])
    rows = "\n".join(f"v{i}.nii.gz,{'ab'[i % 2]}" for i in range(4))
    (tmp_path / "cases.csv").write_text(f"image,class\n{rows}\n")
    prepare_dataset(tmp_path, tmp_path / "cache", OPTIONS)
    plan = read(tmp_path / "cache", "plan.json")
    shape = read(tmp_path / "cache", "cases.json")["cases"][0]["shape"][1:]
    assert plan["preprocessing"]["spacing"][0] == pytest.approx(2.0)
    assert np.prod(plan["patch"]) < 1.5 * 4000
    assert all(n <= 1.3 * p for n, p in zip(shape, plan["patch"], strict=True))


def test_channels_on_different_grids_are_refused_by_name(tmp_path):
    image, _ = scan(0)
    put(tmp_path / "a.nii.gz", image)
    put(
        tmp_path / "b.nii.gz",
        Volume(image.array[:, :6], image.geometry.cropped((0, 0, 0), (6, 20, 18))),
    )
    with pytest.raises(InputError, match=r"b\.nii\.gz does not lie on the grid of .*a\.nii\.gz"):
        Case("x", "x", (tmp_path / "a.nii.gz", tmp_path / "b.nii.gz")).read()


@pytest.mark.real_data
def test_chest_x_rays_are_split_by_patient(data_dir, tmp_path):
    options = PrepareOptions(picture_size=64, stages=4, jobs=2)
    prepare_dataset(data_dir / "cxr_3class", tmp_path / "cache", options)
    plan = read(tmp_path / "cache", "plan.json")
    assert plan["classes"] == ["covid19", "no_finding", "pneumonia"]
    cases = read(tmp_path / "cache", "cases.json")
    assert len(cases["cases"]) + len(cases["excluded"]) == 340
