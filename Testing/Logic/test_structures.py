"""Pieces, volumes and cut faces of structures, against what SciPy counts."""

import numpy as np
import pytest
from scipy.ndimage import center_of_mass, label

from MIMSegment.Logic.connected_runs import number_parts
from MIMSegment.Logic.run_lengths import RunLengths
from MIMSegment.Logic.structures import measure_structures
from MIMSegment.Logic.volume import Geometry

SPACING = (2.0, 1.0, 0.5)


def random_labels(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rng.integers(2, 9, 3)).astype(np.uint8)
    labels[rng.random(labels.shape) < rng.uniform(0, 0.9)] = 0
    return labels


@pytest.mark.parametrize("seed", range(20))
def test_parts_of_runs_are_the_connected_components_of_each_label(seed):
    labels = random_labels(seed)
    runs = RunLengths.encode(labels)
    parts = number_parts(runs)
    for value in np.unique(runs.value):
        sizes = np.bincount(parts[runs.value == value], runs.length[runs.value == value])
        expected, _ = label(labels == value, np.ones((3, 3, 3)))
        assert sorted(sizes[sizes > 0]) == sorted(np.bincount(expected.ravel())[1:])


@pytest.mark.parametrize("seed", range(5))
def test_volume_center_and_pieces_are_those_of_the_voxels(seed):
    labels = random_labels(seed)
    geometry = Geometry.from_parts(labels.shape, SPACING, (10, 20, 30))
    found = measure_structures(labels, geometry)
    assert sorted(found) == [v for v in np.unique(labels) if v]
    for value, structure in found.items():
        mask = labels == value
        assert structure.volume_ml == pytest.approx(mask.sum() * geometry.voxel_volume_ml)
        z, y, x = center_of_mass(mask)
        assert structure.center == pytest.approx((10 + x * 0.5, 20 + y, 30 + z * 2))
        for piece in structure.pieces:
            position = np.subtract(piece.position, (10, 20, 30)) / SPACING[::-1]
            assert mask[tuple(np.round(position[::-1]).astype(int))]
        volumes = [piece.volume_ml for piece in structure.pieces]
        assert volumes == sorted(volumes, reverse=True)


def test_the_section_at_each_face_of_the_image_has_its_area_and_a_place_in_it():
    labels = np.zeros((6, 7, 8), np.uint8)
    labels[2:4, 3:7, 6:8] = 5  # reaches the far faces of y and x
    found = measure_structures(labels, Geometry.from_parts(labels.shape, SPACING))[5]
    assert [(s.side, s.area_mm2) for s in found.cut] == [("posterior", 4.0), ("left", 16.0)]
    assert found.cut[0].position[1] == 6.0
    assert found.cut[1].position[0] == 3.5


def test_nothing_is_measured_where_there_is_only_background():
    labels = np.zeros((3, 4, 5), np.uint8)
    assert measure_structures(labels, Geometry.from_parts(labels.shape, SPACING)) == {}
