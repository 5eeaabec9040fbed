"""Public data sets in small, laid out as the downloads are, made readable for prepare.py."""

import json
from pathlib import Path

import numpy as np
import pytest

import public_data
from finetune import FinetuneRecipe
from mim.cases import find_dataset, read_images
from mim.public_sets import ORGANS
from mim.recipe import load_recipe
from MIMSegment.Logic.labels import labels_from_csv
from MIMSegment.Logic.volume import Geometry, Volume, read_volume, write_volume
from pretrain import PretrainRecipe

RECIPES = Path(__file__).resolve().parents[2] / "training" / "recipes"
SHAPE = (6, 8, 10)


def write(path: Path, array, shift: float = 0.0) -> None:
    matrix = np.eye(4)
    matrix[0, 3] = shift
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(array)
    array = array if array.ndim == 4 else array[None]
    write_volume(Volume(array, Geometry(array.shape[1:], matrix)), path)


def box(x: int, value: int = 1) -> np.ndarray:
    """Zeros with ``value`` in the planes x and x + 1."""
    array = np.zeros(SHAPE, np.uint8)
    array[:, :, x : x + 2] = value
    return array


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture
def totalsegmentator(tmp_path):
    source = tmp_path / "source"
    for name in ("s0000", "s0001"):
        write(source / name / "ct.nii.gz", noise(*SHAPE))
        for organ in (*ORGANS, "femur_left"):
            there = {"spleen": 0, "liver": 4}.get(organ)
            mask = np.zeros(SHAPE, np.uint8) if there is None else box(there)
            write(source / name / "segmentations" / f"{organ}.nii.gz", mask)
    meta = "image_id;age;split\ns0000;50;train\ns0001;60;test\ns0999;70;test\n"
    (source / "meta.csv").write_text(meta, encoding="utf-8")
    return source


def run(name: str, source: Path, out: Path) -> int:
    return public_data.main([name, str(source), str(out)])


def test_organs_become_one_label_image_with_the_sets_own_test_subjects(totalsegmentator, tmp_path):
    out = tmp_path / "out"
    assert run("organs-ct", totalsegmentator, out) == 0
    dataset = find_dataset(out)
    assert dataset.inputs == ("CT",) and len(dataset.labels) == len(ORGANS) == 15
    assert [case.id for case in dataset.cases] == ["s0000", "s0001"]
    labels = read_volume(dataset.cases[0].label).array[0]
    assert set(np.unique(labels)) == {0, 1, 6} and (labels[:, :, 4:6] == 6).all()
    assert (out / "test.txt").read_text() == "s0001\n"


def test_a_second_call_adds_what_is_missing_and_touches_no_label(totalsegmentator, tmp_path):
    out = tmp_path / "out"
    run("organs-ct", totalsegmentator, out)
    (out / "labelsTr" / "s0001.nii.gz").unlink()
    before = (out / "labelsTr" / "s0000.nii.gz").stat().st_mtime_ns
    run("organs-ct", totalsegmentator, out)
    assert (out / "labelsTr" / "s0001.nii.gz").is_file()
    assert (out / "labelsTr" / "s0000.nii.gz").stat().st_mtime_ns == before


def test_a_mask_on_another_grid_is_refused_by_name(totalsegmentator, tmp_path, capsys):
    write(totalsegmentator / "s0000" / "segmentations" / "liver.nii.gz", box(4), shift=3.0)
    assert run("organs-ct", totalsegmentator, tmp_path / "out") == 2
    assert "liver.nii.gz" in capsys.readouterr().err


def test_brain_scans_keep_their_files_and_get_the_names_that_the_matcher_knows(tmp_path):
    source, out = tmp_path / "Task01_BrainTumour", tmp_path / "out"
    write(source / "imagesTr" / "BRATS_001.nii.gz", noise(4, *SHAPE))
    write(source / "labelsTr" / "BRATS_001.nii.gz", box(2, 3))
    write(source / "imagesTs" / "BRATS_485.nii.gz", noise(4, *SHAPE))
    training = [{"image": "./imagesTr/BRATS_001.nii.gz", "label": "./labelsTr/BRATS_001.nii.gz"}]
    described = {"training": training, "test": ["./imagesTs/BRATS_485.nii.gz"]}
    (source / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    assert run("brain-tumor-mr", source, out) == 0
    dataset = find_dataset(out)
    assert dataset.inputs == ("FLAIR", "T1", "T1c", "T2")
    labelled, unlabelled = dataset.cases
    assert labelled.label.is_file() and unlabelled.label is None
    assert read_images(unlabelled.images).array.shape == (4, *SHAPE)
    assert set(dataset.labels.values()) >= {"edema", "enhancing tumor"}


def test_lesions_lie_over_the_zones_of_the_prostate(tmp_path):
    source, out = tmp_path / "prostate158_train", tmp_path / "out"
    for name in ("020", "021"):
        for image in ("t2", "adc", "dwi"):
            write(source / "train" / name / f"{image}.nii.gz", noise(*SHAPE))
        zones = box(2, 1) + box(6, 2)
        write(source / "train" / name / "t2_anatomy_reader1.nii.gz", zones)
    write(source / "train" / "020" / "adc_tumor_reader1.nii.gz", box(6))
    assert run("prostate-lesions-mr", source, out) == 0
    dataset = find_dataset(out)
    assert dataset.inputs == ("T2w", "ADC", "DWI")
    sick, healthy = (read_volume(case.label).array[0] for case in dataset.cases)
    assert (healthy[:, :, 2:4] == 2).all() and (healthy[:, :, 6:8] == 1).all()
    assert (sick[:, :, 6:8] == 3).all()
    names = {label.name: label for label in labels_from_csv(dataset.labels_csv.read_text())}
    assert names["peripheral zone"].type.value == "279706003"


@pytest.mark.parametrize("name", public_data.PUBLIC_SETS)
def test_a_folder_that_is_something_else_is_refused_by_name(name, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert run(name, tmp_path / "empty", tmp_path / "out") == 2
    assert str(tmp_path / "empty") in capsys.readouterr().err


@pytest.mark.parametrize("name", public_data.PUBLIC_SETS)
def test_the_two_recipes_of_a_package_fit_each_other(name):
    stem = RECIPES / f"real_{name.replace('-', '_')}"
    before = load_recipe(PretrainRecipe, f"{stem}_pretrain.toml")
    after = load_recipe(FinetuneRecipe, f"{stem}_finetune.toml")
    assert after.pretrained == f"{before.run}/last.pt" and after.cache == before.cache
    assert after.network == before.network and after.spatial.flip == before.spatial.flip
    if name == "organs-ct":
        assert not any(after.spatial.flip), "left and right are different organs"
