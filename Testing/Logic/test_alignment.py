"""Images brought onto one grid by where they lie in the patient."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion

from MIMSegment.Logic.alignment import align_to, combine, overlap, stack_inputs
from MIMSegment.Logic.candidates import find_candidates
from MIMSegment.Logic.errors import GeometryError
from MIMSegment.Logic.matching import InputSpec, match_inputs
from MIMSegment.Logic.volume import Geometry, Volume, read_volume

ORIGIN = (-20.0, 15, 40)


def rigid(degrees=(10, -20, 35), shift=(12.0, -7, 20)) -> np.ndarray:
    """A 4×4 rotation and translation."""
    matrix = np.eye(4)
    for axis, angle in enumerate(np.radians(degrees)):
        turn = np.eye(4)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    matrix[:3, 3] = shift
    return matrix


def scene(world) -> np.ndarray:
    """A smooth function of LPS points."""
    x, y, z = world
    return 200 + 80 * np.sin(x / 15) + 60 * np.cos(y / 18) + 40 * np.sin(z / 20)


def shown(geometry: Geometry, name: str, transform=None) -> Volume:
    """The scene as a scanner with this grid sees it; ``transform`` moves the grid in the world."""
    matrix = geometry.ijk_to_lps if transform is None else transform @ geometry.ijk_to_lps
    k, j, i = np.meshgrid(*map(np.arange, geometry.shape), indexing="ij")
    world = np.tensordot(matrix, np.stack([i, j, k, np.ones_like(i)]), 1)[:3]
    return Volume(scene(world)[None].astype(np.float32), geometry, name)


REFERENCE = Geometry.from_parts((20, 40, 44), (3, 1, 1), ORIGIN, rigid((4, 8, -3))[:3, :3])
COARSE = Geometry.from_parts((18, 30, 30), (4, 2, 2), (-30, 5, 32), rigid((-5, 2, 6))[:3, :3])


@pytest.mark.parametrize(("order", "tolerance"), [(1, 2.5), (3, 0.6)])
def test_another_grid_shows_the_same_scene_on_the_reference(order, tolerance):
    reference = shown(REFERENCE, "reference")
    aligned = align_to(reference, shown(COARSE, "moving"), order)
    assert aligned.geometry is reference.geometry
    inside = aligned.array[0] > shown(COARSE, "moving").array.min() + 1e-3
    inner = binary_erosion(inside, np.ones((5, 9, 9)))
    assert inner.sum() > 5000
    assert np.abs(aligned.array - reference.array)[0][inner].max() < tolerance


def test_a_parent_transform_is_honored():
    moved = rigid()
    geometry = Geometry(COARSE.shape, np.linalg.inv(moved) @ COARSE.ijk_to_lps)
    reference = shown(REFERENCE, "reference")
    with_parent = align_to(reference, shown(geometry, "moving", moved), transform=moved)
    plain = align_to(reference, shown(COARSE, "moving"))
    assert np.allclose(with_parent.array, plain.array, atol=1e-2)


def test_moving_everything_together_changes_nothing():
    moved = rigid()
    reference, moving = shown(REFERENCE, "reference"), shown(COARSE, "moving")
    there = [Volume(v.array, Geometry(v.geometry.shape, moved @ v.geometry.ijk_to_lps), v.source)
             for v in (reference, moving)]  # fmt: skip
    assert np.allclose(align_to(*there).array, align_to(reference, moving).array, atol=1e-2)
    assert overlap(*there) == pytest.approx(overlap(reference, moving), abs=1e-3)


def test_the_same_grid_is_passed_through_untouched():
    reference = shown(REFERENCE, "reference")
    values = np.random.default_rng(0).integers(0, 9, reference.array.shape).astype(np.int16)
    aligned = align_to(reference, Volume(values, REFERENCE, "same"))
    assert aligned.array is values
    back = Geometry(REFERENCE.shape, np.linalg.inv(rigid()) @ REFERENCE.ijk_to_lps)
    assert align_to(reference, Volume(values, back, "same"), transform=rigid()).array is values


def test_every_channel_is_resampled_and_outside_is_its_own_minimum():
    moving = shown(COARSE, "moving")
    two = Volume(np.concatenate([moving.array, moving.array - 500]), COARSE, "two")
    aligned = align_to(shown(REFERENCE, "reference"), two)
    assert aligned.array.shape == (2, *REFERENCE.shape)
    assert np.allclose(aligned.array[1], aligned.array[0] - 500, atol=1e-3)
    first = align_to(shown(REFERENCE, "reference"), moving)
    assert aligned.array[0].min() == pytest.approx(first.array.min())


@pytest.mark.parametrize("fraction", [1.0, 0.75, 0.5, 0.25, 0.0])
def test_overlap_is_the_covered_part_of_the_reference(fraction):
    reference = Volume(
        np.zeros((1, 16, 16, 16), np.float32), Geometry.from_parts((16,) * 3, (1,) * 3)
    )
    shift = (1 - fraction) * 16
    moving = Volume(
        np.zeros((1, 8, 32, 16), np.float32),
        Geometry.from_parts((8, 32, 16), (2, 1, 1), (shift, -8, 0.5)),
    )
    assert overlap(reference, moving) == pytest.approx(fraction, abs=0.02)


def test_images_that_barely_overlap_are_refused_with_the_figure():
    reference = shown(REFERENCE, "t2w")
    away = np.eye(4)
    away[0, 3] = 55.0
    with pytest.raises(GeometryError, match=r"adc covers only \d+ % of t2w"):
        align_to(reference, shown(COARSE, "adc"), transform=away)
    assert align_to(reference, shown(COARSE, "adc"), transform=away, minimum_overlap=0.0)


def test_stacking_keeps_order_and_warnings_and_refuses_other_grids():
    first = Volume(np.zeros((1, 3, 3, 3), np.int16), Geometry.from_parts((3,) * 3, (1,) * 3), "a",
                   ("beware",), {"Modality": "MR"})  # fmt: skip
    second = Volume(np.ones((2, 3, 3, 3), np.float32), first.geometry, "b", ("beware", "too"))
    stacked = stack_inputs([first, second])
    assert stacked.array.mean(axis=(1, 2, 3)).tolist() == [0, 1, 1]
    assert stacked.warnings == ("beware", "too")
    assert stacked.source == "a, b"
    other = Volume(second.array, Geometry.from_parts((3,) * 3, (1, 1, 2)), "c")
    with pytest.raises(GeometryError, match="c does not lie voxel on voxel with a"):
        stack_inputs([first, other])


@pytest.mark.real_data
def test_prostatex_inputs_meet_on_the_t2w_grid(data_dir):
    folder = data_dir / "prostate_mpmri_prostatex" / "dicom" / "ProstateX-0000"
    inputs = [InputSpec(name, "MR") for name in ("T2w", "ADC", "DWI")]
    matching = match_inputs(inputs, find_candidates([folder])).require()
    volume = combine([match.candidate.read() for match in matching.matches])
    t2w = read_volume(folder / "t2w")
    assert volume.geometry.is_close(t2w.geometry)
    assert np.array_equal(volume.array[0], t2w.array[0])
    gland = read_volume(
        data_dir / "prostate_mpmri_prostatex/labels/ProstateX-0000/whole_gland_ai_bosma22b.nii.gz"
    )
    assert gland.geometry.is_close(t2w.geometry, 0.1)
    adc = volume.array[1][gland.array[0] > 0]
    assert 800 < np.median(adc) < 1800  # 10⁻⁶ mm²/s, as prostate tissue has


@pytest.mark.real_data
def test_a_rigidly_moved_adc_comes_back_to_the_same_place(data_dir):
    folder = data_dir / "prostate_mpmri_prostatex" / "dicom" / "ProstateX-0000"
    t2w, adc = read_volume(folder / "t2w"), read_volume(folder / "adc")
    moved = rigid()
    away = Volume(adc.array, Geometry(adc.geometry.shape, moved @ adc.geometry.ijk_to_lps), "moved")
    there = align_to(t2w, adc)
    back = align_to(t2w, away, transform=np.linalg.inv(moved))
    different = np.abs(there.array - back.array) > 1e-2 * adc.array.max()
    assert different.mean() < 1e-4  # points on the border may fall on either side of it
