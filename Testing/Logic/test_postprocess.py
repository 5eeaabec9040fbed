"""Lesions as objects of their own, and the model's label values back for files."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from MIMSegment.Logic.doubt import DoubtfulPlace
from MIMSegment.Logic.engine import Segmentation
from MIMSegment.Logic.finding import Finding, Severity
from MIMSegment.Logic.labels import Code, Label, labels_from_csv, labels_to_csv
from MIMSegment.Logic.postprocess import (
    MOST_OBJECTS,
    in_model_values,
    separable,
    separate_lesions,
)
from plausibility_cases import ALTERED
from reviewed_cases import GEOMETRY, ZONES, prostate_labels

BRAIN = Code("SCT", "12738006", "Brain")
LARGE, SMALL = (8.0, 38.0, 26.0), (10.0, 21.0, 22.0)  # voxels (z, y, x) inside the two lesions


def at(index) -> tuple[float, ...]:
    """The LPS position of a voxel index (z, y, x)."""
    z, y, x = index
    return tuple(float(v) for v in (GEOMETRY.ijk_to_lps @ [x, y, z, 1])[:3])


def found(labels=None, **more) -> Segmentation:
    labels = prostate_labels() if labels is None else labels
    return Segmentation(labels, GEOMETRY, {1: 0.9, 3: 0.6}, **more)


def _apart(one, other) -> float:
    return float(np.linalg.norm(np.subtract(one, other)))


def test_each_lesion_gets_a_value_and_a_name_the_largest_first():
    result, table = separate_lesions(found(), ZONES)
    names = {label.value: label.name for label in table}
    assert names == {1: "peripheral zone", 2: "transition zone", 3: "lesion 1", 4: "lesion 2"}
    counts = np.bincount(result.labels.ravel())
    assert counts[3] == 2 * 4 * 12 and counts[4] == 2 * 3 * 4
    assert [label.source_value for label in table] == [1, 2, 3, 3]
    assert table[2].color == ZONES[2].color
    assert min(_apart(a, b) for a, b in combinations([s.color for s in table], 2)) > 80
    assert all(label.type == ZONES[2].type for label in table[2:])
    assert result.confidence == {1: 0.9, 3: 0.6, 4: 0.6}


def test_the_models_values_and_names_come_back():
    result, table = separate_lesions(found(), ZONES)
    labels, names = in_model_values(result.labels, table)
    np.testing.assert_array_equal(labels, prostate_labels())
    assert labels.dtype == np.uint8
    assert [(s.value, s.name, s.type) for s in names] == [(s.value, s.name, s.type) for s in ZONES]


def test_findings_and_doubtful_places_go_to_the_lesion_that_they_are_nearest_to():
    def finding(position, label=3):
        return Finding("lesion-outside-organ", Severity.WARNING, "Look here.", label, position)

    near_small = (10.0, 18.0, 22.0)  # three voxels beside it
    before = found(
        findings=(finding(at(LARGE)), finding(at(SMALL)), finding(None), finding(at(SMALL), 1)),
        doubtful=(DoubtfulPlace(at(near_small), 3, 0.1), DoubtfulPlace(at(LARGE), 2, 0.1)),
    )
    result, _ = separate_lesions(before, ZONES)
    assert [f.label for f in result.findings] == [3, 4, 3, 1]
    assert [place.label for place in result.doubtful] == [4, 2]


@pytest.mark.parametrize("lesions", [0, 1])
def test_nothing_changes_where_there_is_at_most_one(lesions):
    labels = prostate_labels()
    labels[10:12, 20:23, 20:24] = 2
    labels[labels == 3] = 3 * lesions
    before = found(labels)
    result, table = separate_lesions(before, ZONES)
    assert result is before and table == ZONES


def test_specks_and_what_is_beyond_the_most_share_the_last_row():
    labels = np.zeros(GEOMETRY.shape, np.uint8)
    for number in range(MOST_OBJECTS + 5):
        z, y = divmod(number, 5)
        labels[3 * z, 10 * y : 10 * y + 4 + number % 3, 0:2] = 3
    labels[19, 59, 59] = 3  # a speck
    result, table = separate_lesions(found(labels), ZONES)
    lesions = [label for label in table if label.model_value == 3]
    assert len(lesions) == MOST_OBJECTS + 1
    assert lesions[-1].name == "lesion, smaller ones"
    assert result.labels[19, 59, 59] == lesions[-1].value
    sizes = np.bincount(result.labels.ravel())[[label.value for label in lesions[:-1]]]
    assert (np.diff(sizes) <= 0).all()
    np.testing.assert_array_equal(in_model_values(result.labels, table)[0], labels)


def test_parts_of_one_tumor_stay_together():
    core = Label(1, "necrotic core", ALTERED, Code("SCT", "6574001", "Necrosis"), region=BRAIN)
    edema = replace(core, value=2, name="edema", type=Code("SCT", "79654002", "Edema"))
    assert separable([core, edema]) == []
    assert separable(ZONES) == [ZONES[2]]


def test_lesions_asked_for_alone_are_as_they_are_among_all():
    other = replace(ZONES[2], value=9, name="finding", region=BRAIN)
    labels = np.where(prostate_labels() == 3, 9, prostate_labels()).astype(np.uint8)
    for wanted, lesion in (((3,), prostate_labels()), ((9,), labels)):
        _, table = separate_lesions(found(lesion), (*ZONES, other), wanted)
        _, among_all = separate_lesions(found(lesion), (*ZONES, other))
        assert len(table) == 2 and set(table) <= set(among_all)
        assert all(s.value == wanted[0] or s.value > 9 for s in table), "no other one's value"
    core = replace(other, name="core")
    _, table = separate_lesions(found(labels), (replace(core, value=8), core), (9,))
    assert table == (core,), "a part of a tumor, also without the others"


def test_more_than_255_values_fit():
    wide = replace(ZONES[2], value=255)
    labels = np.where(prostate_labels() == 3, 255, 0).astype(np.uint8)
    result, table = separate_lesions(found(labels), [wide])
    assert [label.value for label in table] == [255, 256] and result.labels.dtype == np.uint16
    assert (result.labels == 256).sum() == 24


def test_the_table_of_labels_keeps_what_the_model_called_them():
    _, table = separate_lesions(found(), ZONES)
    assert tuple(labels_from_csv(labels_to_csv(list(table)))) == table
    assert "ModelLabelValue" not in labels_to_csv(list(ZONES))
