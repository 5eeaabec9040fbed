"""The digital phantoms: the same from the same seed, anatomically right, written as promised."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import sample_studies
from mim.phantom import TASKS, main, make_phantom, write_dataset, write_study
from MIMSegment.Logic.errors import InputError, OutputError
from MIMSegment.Logic.labels import labels_from_csv
from MIMSegment.Logic.volume import Geometry, Volume, read_volume

TINY = {"abdomen": (20, 24, 30), "brain": (20, 28, 24), "prostate": (10, 32, 32)}


@pytest.fixture(scope="module")
def patient():
    """Patients on the task's own grid by (task, seed), each made once."""
    made = {}

    def get(task: str, seed: int):
        if (task, seed) not in made:
            with np.errstate(over="raise", invalid="raise", divide="raise"):
                made[task, seed] = make_phantom(task, seed)
        return made[task, seed]

    return get


def mean_in(phantom, sequence: str, value: int) -> float:
    return float(phantom.images[sequence].array[phantom.label.array == value].mean())


def center_of(label: Volume, value: int) -> np.ndarray:
    """LPS center of gravity in mm."""
    index = ndimage.center_of_mass(label.array[0] == value)
    return (label.geometry.ijk_to_lps @ [*index[::-1], 1])[:3]


def values_of(task: str) -> dict[str, int]:
    return {label.name: label.value for label in TASKS[task].labels}


@pytest.mark.parametrize("task", TASKS)
def test_a_seed_draws_the_same_patient_every_time(task):
    one, two = (make_phantom(task, 3, TINY[task]) for _ in range(2))
    for name in TASKS[task].sequences:
        np.testing.assert_array_equal(one.images[name].array, two.images[name].array)
    np.testing.assert_array_equal(one.label.array, two.label.array)
    np.testing.assert_array_equal(one.label.geometry.ijk_to_lps, two.label.geometry.ijk_to_lps)
    assert one.info == two.info


@pytest.mark.parametrize("task", TASKS)
def test_another_seed_draws_another_patient(task):
    one, two = (make_phantom(task, seed, TINY[task]) for seed in (0, 1))
    first = TASKS[task].sequences[0]
    assert (one.images[first].array != two.images[first].array).mean() > 0.3
    assert not np.allclose(one.label.geometry.origin, two.label.geometry.origin)
    assert one.info["volumes_ml"] != two.info["volumes_ml"]


@pytest.mark.parametrize("task", TASKS)
def test_images_and_label_share_one_grid(task, patient):
    phantom = patient(task, 0)
    assert tuple(phantom.images) == TASKS[task].sequences
    assert phantom.label.array.dtype == np.uint8
    for image in phantom.images.values():
        assert image.array.dtype == np.int16
        assert image.geometry.is_close(phantom.label.geometry)


@pytest.mark.parametrize("task", ["abdomen", "brain"])
@pytest.mark.parametrize("seed", range(3))
def test_every_structure_is_present_and_no_other(task, seed, patient):
    phantom = patient(task, seed)
    assert set(np.unique(phantom.label.array)) == {0, *values_of(task).values()}
    assert min(phantom.info["volumes_ml"].values()) > 0.5


@pytest.mark.parametrize("task", TASKS)
def test_without_a_size_the_grid_is_modest_and_varies(task, patient):
    shapes = [patient(task, seed).label.geometry.shape for seed in range(3)]
    assert len(set(shapes)) > 1
    assert max(np.prod(shape) for shape in shapes) < 1.3e6


@pytest.mark.parametrize("task", TASKS)
def test_size_is_the_number_of_voxels(task):
    assert make_phantom(task, 0, TINY[task]).label.geometry.shape == TINY[task]


@pytest.mark.parametrize("task", TASKS)
def test_anatomy_does_not_depend_on_the_size_of_the_voxels(task, patient):
    usual = patient(task, 1)
    size = [round(0.8 * n) for n in usual.label.geometry.shape]
    coarse = make_phantom(task, 1, size)
    for name, volume in usual.info["volumes_ml"].items():
        if volume > 20:
            assert coarse.info["volumes_ml"][name] == pytest.approx(volume, rel=0.15), name


@pytest.mark.parametrize("seed", range(6))
def test_prostate_has_its_zones_and_as_many_lesions_as_are_told(seed, patient):
    phantom = patient("prostate", seed)
    label = phantom.label.array[0]
    assert {1, 2} <= set(np.unique(label))
    _, count = ndimage.label(label == 3, np.ones((3, 3, 3)))
    assert count == len(phantom.lesions) <= 3


def test_prostate_lesions_come_in_different_numbers_and_lie_where_they_are_told(patient):
    phantoms = [patient("prostate", seed) for seed in range(6)]
    assert len({len(phantom.lesions) for phantom in phantoms}) >= 3
    for phantom in phantoms:
        grid = phantom.label.geometry
        for lesion in phantom.lesions:
            index = np.linalg.inv(grid.ijk_to_lps) @ [*lesion["center_lps"], 1]
            x, y, z = np.rint(index[:3]).astype(int)
            assert (phantom.label.array[0, z - 1 : z + 2, y - 1 : y + 2, x - 1 : x + 2] == 3).any()


@pytest.mark.parametrize("seed", range(6))
def test_prostate_lesions_are_dark_on_t2w_and_adc_and_bright_on_dwi(seed, patient):
    phantom = patient("prostate", seed)
    t2w, adc, dwi = ([mean_in(phantom, s, v) for v in (1, 2)] for s in ("T2w", "ADC", "DWI"))
    assert t2w[0] > 1.2 * t2w[1]
    assert 1200 < adc[0] < 2200
    if phantom.lesions:
        assert mean_in(phantom, "T2w", 3) < 0.8 * t2w[0]
        assert mean_in(phantom, "ADC", 3) < 0.75 * adc[0]
        assert mean_in(phantom, "DWI", 3) > 1.2 * max(dwi)


def test_prostate_sequences_keep_their_own_grids_when_asked():
    size = TINY["prostate"]
    study = make_phantom("prostate", 2, size, sequence_grids=True)
    joined = make_phantom("prostate", 2, size)
    t2w, adc, dwi = (study.images[name].geometry for name in ("T2w", "ADC", "DWI"))
    assert t2w.is_close(study.label.geometry)
    assert adc.is_close(dwi) and not adc.is_close(t2w)
    np.testing.assert_allclose(adc.spacing, (3, 2, 2))
    np.testing.assert_array_equal(study.label.array, joined.label.array)
    np.testing.assert_array_equal(study.images["T2w"].array, joined.images["T2w"].array)
    middle = center_of(study.label, 1)
    index = np.linalg.inv(adc.ijk_to_lps) @ [*middle, 1]
    assert (index[:3] > 0).all() and (index[:3] < adc.shape[::-1]).all()


def test_prostate_scan_is_oblique_as_real_ones_are(patient):
    direction = patient("prostate", 1).label.geometry.direction
    assert not np.allclose(direction, np.eye(3), atol=1e-3)
    np.testing.assert_allclose(direction @ direction.T, np.eye(3), atol=1e-9)
    assert patient("prostate", 1).label.geometry.orientation == "LPS"


@pytest.mark.parametrize("seed", range(3))
def test_brain_contrasts_are_those_of_a_glioma(seed, patient):
    phantom = patient("brain", seed)
    brain = (phantom.label.array == 0) & (phantom.images["T2"].array > 0)
    usual = {name: np.median(image.array[brain]) for name, image in phantom.images.items()}
    necrosis, edema, enhancing = 1, 2, 3
    assert mean_in(phantom, "FLAIR", edema) > 1.4 * usual["FLAIR"]
    assert mean_in(phantom, "T2", edema) > 1.2 * usual["T2"]
    assert mean_in(phantom, "T1", necrosis) < usual["T1"]
    assert mean_in(phantom, "T1c", enhancing) > 1.3 * usual["T1c"]
    assert mean_in(phantom, "T1c", enhancing) > 1.3 * mean_in(phantom, "T1c", necrosis)


def test_brain_is_stripped_unless_the_skull_is_asked_for(patient):
    stripped = patient("brain", 0).images["T1"].array
    whole = make_phantom("brain", 0, TINY["brain"], skull=True).images["T1"].array
    assert (stripped == 0).mean() > 0.4
    assert (whole == 0).mean() < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_abdominal_organs_have_their_hounsfield_units(seed, patient):
    phantom, values = patient("abdomen", seed), values_of("abdomen")
    image, label = phantom.images["CT"].array, phantom.label.array
    typical = {name: np.median(image[label == value]) for name, value in values.items()}
    assert 40 < typical["liver"] < 120
    assert 35 < typical["spleen"] < 140
    assert -10 < typical["gallbladder"] < 45
    assert typical["spine"] > 120
    assert image[0, 0, 0, 0] < -900
    if phantom.info["contrast"] > 0.5:
        assert typical["aorta"] > 100 and typical["left kidney"] > 90


@pytest.mark.parametrize("seed", range(3))
def test_abdominal_organs_lie_on_their_sides(seed, patient):
    label, values = patient("abdomen", seed).label, values_of("abdomen")
    where = {name: center_of(label, value) for name, value in values.items()}
    middle = where["spine"][0]
    for name in ("left kidney", "spleen", "stomach"):
        assert where[name][0] > middle + 10, name  # LPS: +x is the patient's left
    for name in ("right kidney", "liver", "gallbladder", "inferior vena cava"):
        assert where[name][0] < middle - 5, name
    assert where["aorta"][0] > where["inferior vena cava"][0]
    assert where["aorta"][1] < where["spine"][1]  # +y is the back
    assert where["liver"][2] > where["right kidney"][2]  # +z is the head


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_coded(task):
    labels = TASKS[task].labels
    assert [label.value for label in labels] == list(range(1, len(labels) + 1))
    assert len({label.color for label in labels}) == len(labels)
    for label in labels:
        assert label.type.scheme == label.category.scheme == "SCT"
    sides = [label.type_modifier.meaning for label in labels if label.type.value == "64033007"]
    assert sides == (["Right", "Left"] if task == "abdomen" else [])


@pytest.mark.parametrize("task", TASKS)
def test_a_data_set_is_written_in_the_decathlon_layout(task, tmp_path):
    index = write_dataset(task, tmp_path, count=2, seed=5, held_out=1, size=TINY[task])
    description = json.loads(index.read_text())
    chosen = TASKS[task]
    assert list(description["modality"].values()) == list(chosen.sequences)
    assert description["labels"] == {"0": "background"} | {
        str(label.value): label.name for label in chosen.labels
    }
    assert "phantom" in description["description"].lower()
    assert len(set(description["subjects"].values())) == len(description["subjects"]) == 3
    assert description["test"] == [f"./imagesTs/{task}_002.nii.gz"]
    assert (tmp_path / "labelsTs" / f"{task}_002.nii.gz").is_file()
    assert labels_from_csv((tmp_path / "labels.csv").read_text()) == chosen.labels
    for i, case in enumerate(description["training"]):
        image, label = (read_volume(tmp_path / case[kind]) for kind in ("image", "label"))
        expected = make_phantom(task, 5 + i, TINY[task])
        assert image.geometry.is_close(expected.label.geometry)
        assert label.geometry.is_close(expected.label.geometry)
        np.testing.assert_array_equal(label.array, expected.label.array)
        for channel, name in enumerate(chosen.sequences):
            np.testing.assert_array_equal(image.array[channel], expected.images[name].array[0])


def test_several_sequences_become_a_4d_nifti(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    write_dataset("prostate", tmp_path, count=1, size=TINY["prostate"])
    header = nibabel.load(tmp_path / "imagesTr" / "prostate_000.nii.gz").header
    assert header.get_data_shape() == (*TINY["prostate"][::-1], 3)


def test_a_data_set_is_never_overwritten(tmp_path):
    write_dataset("brain", tmp_path, count=1, size=TINY["brain"])
    before = (tmp_path / "dataset.json").read_bytes()
    with pytest.raises(OutputError, match=r"dataset\.json exists already"):
        write_dataset("brain", tmp_path, count=2, size=TINY["brain"])
    assert (tmp_path / "dataset.json").read_bytes() == before


def test_a_study_is_written_with_a_file_for_each_sequence(tmp_path):
    paths = write_study("prostate", tmp_path / "study", seed=4, size=TINY["prostate"])
    names = ["T2w.nrrd", "ADC.nrrd", "DWI.nrrd", "label.nrrd", "labels.csv"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "study").iterdir()) == sorted(names)
    t2w, adc, _, label = (read_volume(path).geometry for path in paths[:4])
    assert isinstance(t2w, Geometry) and t2w.is_close(label) and not t2w.is_close(adc)


@pytest.mark.parametrize(
    "task, seed, size",
    [("knee", 0, None), ("brain", -1, None), ("brain", 0, (4, 64, 64)), ("brain", 0, (64, 64))],
)
def test_impossible_requests_are_refused_by_name(task, seed, size):
    with pytest.raises(InputError):
        make_phantom(task, seed, size)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_study("brain", tmp_path / "file" / "study", seed=0, size=TINY["brain"])


def test_the_command_reports_errors_without_a_traceback(tmp_path, capsys):
    (tmp_path / "dataset.json").write_text("{}")
    assert main(["brain", "-o", str(tmp_path)]) == 1
    assert "exists already" in capsys.readouterr().err


def test_the_command_runs_from_a_checkout_and_says_what_it_wrote(tmp_path):
    script = Path(__file__).resolve().parents[2] / "training" / "mim" / "phantom.py"
    command = [sys.executable, script, "prostate", "-o", tmp_path / "set", "-n", "2"]
    command += ["--size", "10", "32", "32", "--preview", tmp_path / "preview.png"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1].startswith("Wrote 2 prostate phantoms (T2w, ADC, DWI)")
    assert str(tmp_path / "set") in done.stdout
    assert "2/2" in done.stderr
    assert len(list((tmp_path / "set" / "imagesTr").iterdir())) == 2
    assert (tmp_path / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_writes_studies(tmp_path):
    assert main(["brain", "-o", str(tmp_path), "--study", "--size", "20", "28", "24"]) == 0
    assert sorted(p.name for p in (tmp_path / "brain_000").glob("*.nrrd")) == [
        "FLAIR.nrrd",
        "T1.nrrd",
        "T1c.nrrd",
        "T2.nrrd",
        "label.nrrd",
    ]


def test_help_of_the_sample_studies_draws_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        sample_studies.main(["--help"])
    assert ended.value.code == 0 and "usage" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
