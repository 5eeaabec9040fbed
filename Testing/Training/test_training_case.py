"""The loop closes: reviewed cases in a folder that prepare.py reads."""

import json
from dataclasses import replace

import numpy as np
import pytest

from mim.caching import PrepareOptions, prepare_dataset
from mim.data import read_cache
from MIMSegment.Logic.errors import OutputError
from MIMSegment.Logic.review_items import Verdict
from MIMSegment.Logic.training_case import write_training_case
from MIMSegment.Logic.volume import Volume, read_volume
from reviewed_cases import prostate_case, prostate_labels


def another(case, number):
    """The same review of another image."""
    inputs = tuple(
        replace(item, volume=Volume(item.volume.array + number, item.volume.geometry))
        for item in case.inputs
    )
    return replace(case, inputs=inputs)


def test_prepare_reads_what_was_reviewed(tmp_path):
    case = prostate_case(inputs=2)
    for number in range(3):
        write_training_case(another(case, number), tmp_path / "reviewed")
    prepare_dataset(tmp_path / "reviewed", tmp_path / "cache", PrepareOptions(jobs=1))
    cache = read_cache(tmp_path / "cache")
    assert len(cache.cases) == 3 and cache.channels == 2
    assert [i["name"] for i in cache.plan["inputs"]] == ["T2w", "ADC"]
    assert [s["name"] for s in cache.plan["labels"]] == [s.name for s in case.table]
    label = read_volume(cache.cases[0]["source_label"])
    assert np.array_equal(label.array, case.labels.array)
    assert label.geometry.is_close(case.labels.geometry)


def test_the_same_case_again_replaces_itself(tmp_path):
    case = prostate_case()
    write_training_case(case, tmp_path)
    write_training_case(replace(case, labels=Volume(
        case.labels.array * (case.labels.array != 3), case.labels.geometry)), tmp_path)  # fmt: skip
    index = json.loads((tmp_path / "dataset.json").read_text())
    assert index["numTraining"] == 1 and len(list((tmp_path / "imagesTr").iterdir())) == 1
    assert 3 not in read_volume(tmp_path / index["training"][0]["label"]).array


def test_an_undecided_structure_keeps_a_case_out(tmp_path):
    case = prostate_case(verdicts={1: Verdict.OPEN})
    with pytest.raises(OutputError, match="peripheral zone has no verdict yet"):
        write_training_case(case, tmp_path / "new")
    case = prostate_case(verdicts={1: Verdict.OPEN, 2: Verdict.OPEN})
    with pytest.raises(OutputError, match="peripheral zone and transition zone have no verdict"):
        write_training_case(case, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_rejected_structures_are_background_and_keep_their_place_in_the_table(tmp_path):
    write_training_case(prostate_case(), tmp_path)
    labels = prostate_case().labels.array[0].copy()
    labels[labels == 3] = 0
    write_training_case(another(prostate_case(labels, {3: Verdict.REJECTED}), 7), tmp_path)
    index = json.loads((tmp_path / "dataset.json").read_text())
    assert index["numTraining"] == 2 and index["labels"]["3"] == "lesion"
    assert "52988006" in (tmp_path / "labels.csv").read_text()


def test_a_rejected_lesion_is_the_organ_around_it(tmp_path):
    write_training_case(prostate_case(verdicts={3: Verdict.REJECTED}), tmp_path)
    (entry,) = json.loads((tmp_path / "dataset.json").read_text())["training"]
    written, drawn = read_volume(tmp_path / entry["label"]).array[0], prostate_labels()
    assert set(written[drawn == 3]) == {1, 2} and (written[8:10, 36:40, 20:32] == 1).all()
    assert np.array_equal(written[drawn != 3], drawn[drawn != 3])


def test_a_folder_of_another_model_is_refused_and_stays_as_it_is(tmp_path):
    mine, foreign = tmp_path / "mine", tmp_path / "foreign"
    write_training_case(prostate_case(inputs=2), mine)
    before = files_of(mine)
    with pytest.raises(OutputError, match="cases with other inputs"):
        write_training_case(prostate_case(inputs=1), mine)
    assert files_of(mine) == before
    foreign.mkdir()
    (foreign / "dataset.json").write_text('{"name": "Task05"}')
    with pytest.raises(OutputError, match="made elsewhere"):
        write_training_case(prostate_case(), foreign)
    assert (foreign / "dataset.json").read_text() == '{"name": "Task05"}'


def files_of(folder):
    files = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {p.name: p.read_bytes() for p in files}


@pytest.mark.real_data
def test_no_file_carries_a_name_and_studies_of_one_person_stay_together(data_dir, tmp_path):
    import pydicom

    from MIMSegment.Logic.dicom import scan

    (series,) = scan(data_dir / "prostate_mpmri_prostatex/dicom/ProstateX-0000/t2w")
    patient = str(pydicom.dcmread(series.files[0]).PatientID)
    case = prostate_case()
    case = replace(case, inputs=(replace(case.inputs[0], files=series.files),))
    for number in range(2):
        write_training_case(another(case, number), tmp_path)
    subjects = json.loads((tmp_path / "dataset.json").read_text())["subjects"]
    assert len(subjects) == 2 and len(set(subjects.values())) == 1
    everything = (tmp_path / "dataset.json").read_text() + str(list(tmp_path.rglob("*")))
    assert patient and patient not in everything.replace(str(tmp_path), "")
